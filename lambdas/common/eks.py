"""An EKS cluster as AWS describes it, and the token for its Kubernetes API."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest

from lambdas.common import aws
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.errors import PermanentError

if TYPE_CHECKING:
    import boto3.session
    import botocore.session
    from botocore.credentials import Credentials
    from mypy_boto3_eks import EKSClient


@dataclass(frozen=True)
class Cluster:
    """The cluster as DescribeCluster describes it; `ca_pem` is its certificate authority in PEM."""

    name: str
    endpoint: str
    ca_pem: str
    region: str
    arn: str = ""
    status: str = ""
    vpc_id: str = ""
    authentication_mode: str = ""
    ip_family: str = ""
    """`ipv4` or `ipv6`: the addresses of pods."""
    tags: Mapping[str, str] = field(default_factory=dict)


def describe(eks: EKSClient, name: str, *, region: str) -> Cluster:
    """One DescribeCluster.

    Raises AwsUnavailableError or AwsRefusedError (code ResourceNotFoundException: no such cluster),
    and PermanentError where the cluster has no endpoint or no readable certificate yet.
    """
    with aws.translated_errors("eks:DescribeCluster"):
        answer: Mapping[str, Any] = eks.describe_cluster(name=name)["cluster"]
    endpoint = answer.get("endpoint", "")
    status = answer.get("status", "")
    if not endpoint:
        raise PermanentError(
            f"Wait until cluster {name} has an endpoint: it is {status or 'unknown'} now"
        )
    return Cluster(
        name=name,
        endpoint=endpoint,
        ca_pem=_pem(name, answer.get("certificateAuthority", {}).get("data", "")),
        region=region,
        arn=answer.get("arn", ""),
        status=status,
        vpc_id=answer.get("resourcesVpcConfig", {}).get("vpcId", ""),
        authentication_mode=answer.get("accessConfig", {}).get("authenticationMode", ""),
        ip_family=answer.get("kubernetesNetworkConfig", {}).get("ipFamily", ""),
        tags=answer.get("tags", {}),
    )


_NOT_EKS: Final = "Check the endpoint of EKS and any proxy before it: DescribeCluster gave"


def _pem(name: str, data: str) -> str:
    try:
        pem = base64.b64decode(data, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise PermanentError(f"{_NOT_EKS} no readable CA of cluster {name}: {error}") from error
    if "BEGIN CERTIFICATE" not in pem:
        raise PermanentError(f"{_NOT_EKS} no certificate of cluster {name}")
    return pem


# The bearer token by which EKS knows an IAM principal: a presigned GetCallerIdentity URL of STS
# that names the cluster in a signed header, as aws-iam-authenticator defines it.
TOKEN_PREFIX = "k8s-aws-v1."  # noqa: S105 - no secret
# s. What EKS expects in X-Amz-Expires; the token itself is accepted for 15 minutes.
_EXPIRES = 60
# s after which a new token is signed, well before EKS's 15 minutes are over.
TOKEN_LIFETIME = 10 * 60


def sign_token(credentials: Credentials, *, region: str, dns_suffix: str, cluster: str) -> str:
    """A token for `cluster`, signed with `credentials` for the regional STS host.

    It is signed here, without a call. `dns_suffix` is that of the region's partition. The token is
    a secret: never log it.
    """
    request = AWSRequest(
        method="GET",
        url=f"https://sts.{region}.{dns_suffix}/?Action=GetCallerIdentity&Version=2011-06-15",
        headers={"x-k8s-aws-id": cluster},
    )
    SigV4QueryAuth(credentials, "sts", region, expires=_EXPIRES).add_auth(request)
    url = str(request.prepare().url)
    return TOKEN_PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


class Token:
    """The token for one cluster, signed when it is first needed and again before it ends."""

    def __init__(self, sign: Callable[[], str], *, clock: Clock = SYSTEM) -> None:
        self._sign = sign
        self._clock = clock
        self._token = ""
        self._renew_at = 0.0

    def get(self, *, fresh: bool = False) -> str:
        """The current token; `fresh` signs a new one whatever its age (after a 401)."""
        now = self._clock.now()
        if fresh or now >= self._renew_at:
            self._token = self._sign()
            self._renew_at = now + TOKEN_LIFETIME
        return self._token

    def __repr__(self) -> str:
        return "Token(…)"  # it is a secret


def token_for(
    cluster: Cluster,
    *,
    session: boto3.session.Session | botocore.session.Session | None = None,
    clock: Clock = SYSTEM,
) -> Token:
    """The token of this process's own AWS identity (that of `session`) for `cluster`.

    Raises AwsRefusedError where there are no credentials.
    """

    def sign() -> str:
        with aws.translated_errors("sts:GetCallerIdentity (presigned)"):
            own = session or aws.session()
            credentials = own.get_credentials()
            if credentials is None:
                raise PermanentError("Give this process AWS credentials: the SDK finds none")
            return sign_token(
                credentials,
                region=cluster.region,
                dns_suffix=aws.dns_suffix(own, cluster.region),
                cluster=cluster.name,
            )

    return Token(sign, clock=clock)
