"""EC2's answer to DescribeInstances, in its own protocol. Needs the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

_INSTANCE = """<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<requestId>0</requestId><reservationSet><item><reservationId>r-0</reservationId><instancesSet><item>
<instanceId>{id}</instanceId><instanceState><code>16</code><name>{state}</name></instanceState>
<privateDnsName>{dns_name}</privateDnsName><tagSet>{tags}</tagSet></item></instancesSet></item>
</reservationSet></DescribeInstancesResponse>"""
NOTHING = b"<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>"
"""The body where no instance is found."""
_TAG = "<item><key>{}</key><value>{}</value></item>"


def one_instance(
    instance: str, dns_name: str, tags: Mapping[str, str], *, state: str = "running"
) -> bytes:
    """The body for one instance."""
    listed = "".join(_TAG.format(escape(key), escape(value)) for key, value in tags.items())
    return _INSTANCE.format(
        id=instance, state=state, dns_name=escape(dns_name), tags=listed
    ).encode()
