"""The bearer token by which an EKS cluster knows an IAM principal.

A presigned STS GetCallerIdentity URL that names the cluster in a signed header, as
aws-iam-authenticator defines it. It is made locally: no call, no time.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest

if TYPE_CHECKING:
    from botocore.credentials import Credentials

PREFIX = "k8s-aws-v1."
# s. What EKS expects in X-Amz-Expires; the token itself is accepted for 15 minutes.
_EXPIRES = 60
# s. Sign anew well before EKS's 15 minutes are over.
LIFETIME = 10 * 60


def sign(credentials: Credentials, *, region: str, dns_suffix: str, cluster: str) -> str:
    """A token for `cluster`, signed with `credentials` for the regional STS host.

    `dns_suffix` is that of the region's partition. The token is a secret: never log it.
    """
    request = AWSRequest(
        method="GET",
        url=f"https://sts.{region}.{dns_suffix}/?Action=GetCallerIdentity&Version=2011-06-15",
        headers={"x-k8s-aws-id": cluster},
    )
    SigV4QueryAuth(credentials, "sts", region, expires=_EXPIRES).add_auth(request)
    url = str(request.prepare().url)
    return PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
