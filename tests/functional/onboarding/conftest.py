"""The onboarding's handler on an account (moto), a fake of EKS, a served cluster and the simulated
CAST AI. Time passes only where code sleeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ReadTimeoutError
from moto import mock_aws
from moto.ec2.models import ec2_backends

from kubesim import ServedCluster
from kubesim.authentication import User
from lambdas.common import aws
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import Clock
from lambdas.common.eks import Cluster, Token
from lambdas.common.kubernetes_objects import Kube, connect
from lambdas.common.names import CLUSTER_TAG
from lambdas.onboarding import handler
from lambdas.onboarding.context import Clients, Place
from lambdas.onboarding.policies import onboarder
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import Scope
from lambdas.onboarding.session import Dependencies
from sandbox.castai_api.state import State
from simulation.resources.account import Moto, add_managed_policies, as_aws, sdk_client, unique_id
from simulation.resources.eks import ACCOUNT, FakeEks, FakeLambda, refusal
from tests.functional.conftest import CastaiServer
from tests.functional.onboarding.rights import Rights
from tests.support.aws_environment import aws_environment
from tests.support.fake_time import FakeTime

REGION = "eu-central-1"
SPOT_ROLE = f"arn:aws:iam::{ACCOUNT}:role/CastLambdaRoleForSpot"
OWN_ROLE = f"arn:aws:iam::{ACCOUNT}:role/castai-onboarding"
API_KEY = "castai-api-key-of-the-tests"
API_KEY_SECRET = "castai/api-key"
START = 1_800_000_000.0  # epoch seconds
REMAINING = 600.0  # s: the function's time-out
STACK = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/castai-onboarding/1b2c"
_NEXT = "the-second-page"
_READS = ("get", "list", "describe")


class Users:
    """Authenticates the function's token while an access entry or a mapping exists for its role."""

    def __init__(self) -> None:
        self.admits: Callable[[], bool] = lambda: False
        self.refusals = 0
        """How many further requests get a 401 although the entry exists."""

    async def authenticate(self, token: str) -> User | None:
        if token != "k8s-aws-v1.test" or not self.admits():
            return None
        if self.refusals:
            self.refusals -= 1
            return None
        return User(OWN_ROLE, ("system:masters", "system:authenticated"))


@dataclass
class Fault:
    """The write number `at` (from 0) fails: it is refused, or with `after` its answer is lost."""

    at: int
    code: str = "AccessDenied"
    after: bool = False


@dataclass
class Writes:
    """The writes to AWS, in order, and the fault of one of them."""

    done: list[str] = field(default_factory=list)
    actions: set[str] = field(default_factory=set)
    """The IAM actions of all calls, reads included."""
    fault: Fault | None = None
    met: int = 0
    """How many faults were met."""
    attached: list[dict[str, str]] = field(default_factory=list)
    """The arguments of the calls that attached a policy to a user or a role."""
    deleted: list[dict[str, str]] = field(default_factory=list)
    """Deleted users and roles that IAM lists once more as entities of a policy."""
    just_before: dict[str, Callable[[], object]] = field(default_factory=dict)
    """By write: what another run does before it. Each is called once."""


class RecordingClient:
    """A client that checks the permissions, records its writes and fails where a fault is set."""

    def __init__(self, client: Any, service: str, writes: Writes, rights: Rights) -> None:
        self._client, self._service = client, service
        self.meta = sdk_client(service).meta  # names of operations, which the fakes lack
        self._writes, self._rights = writes, rights

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        words = name.split("_")
        self._writes.actions.add(f"{self._service}:{''.join(w.capitalize() for w in words)}")
        reads = name.startswith(_READS)
        if reads:
            method = _paged(self._client, self._service, name, method)
        if name == "list_entities_for_policy":
            method = self._with_deleted(method)

        def call(**arguments: Any) -> Any:
            self._rights.check(self._service, name, arguments)
            return method(**arguments) if reads else self._write(name, method, arguments)

        call.__name__ = name
        call.__self__ = self  # type: ignore[attr-defined]
        return call

    def _write(self, name: str, method: Any, arguments: dict[str, Any]) -> Any:
        writes = self._writes
        number = len(writes.done)
        writes.done.append(f"{self._service}:{name}")
        if before := writes.just_before.pop(f"{self._service}:{name}", None):
            before()
        fault = writes.fault
        if fault is not None and fault.at == number:
            writes.met += 1
            if fault.after:
                method(**arguments)
                raise ReadTimeoutError(endpoint_url=f"https://{self._service}.invalid")
            raise refusal(fault.code, f"injected into {self._service}:{name}")
        try:
            answer = method(**arguments)
        except ValueError as error:  # moto: the role is not in the profile
            raise refusal("NoSuchEntity") from error
        if name in {"attach_user_policy", "attach_role_policy"}:
            writes.attached.append(arguments)
        if name in {"delete_user", "delete_role"}:
            writes.deleted.append(arguments)
        return answer

    def _with_deleted(self, listing: Any) -> Any:
        """A listing that has the deleted users and roles once more, as IAM's lists may."""

        def listed(**arguments: Any) -> Any:
            answer = listing(**arguments)
            policy = {"PolicyArn": arguments["PolicyArn"]}
            deleted = [
                each for each in self._writes.deleted if each | policy in self._writes.attached
            ]
            self._writes.deleted.clear()
            for each in deleted:
                answer["PolicyUsers" if "UserName" in each else "PolicyRoles"].append(each)
            return answer

        return listed


def _paged(client: Any, service: str, name: str, method: Any) -> Any:
    """A listing whose first page is empty and not the last, as EC2's and IAM's may be."""
    sdk = sdk_client(service)
    if not isinstance(client, BaseClient | Moto) or not sdk.can_paginate(name):
        return method
    listing = sdk.get_paginator(name)
    token, more = listing._input_token[0], listing._more_results
    keys = [key.expression for key in listing.result_keys]

    def page(**arguments: Any) -> Any:
        if token not in arguments:
            method(**arguments)  # an error comes with the first page
            first = {token: _NEXT, **{key: [] for key in keys}}
            return first | ({more.expression: True} if more else {})
        if arguments[token] == _NEXT:
            del arguments[token]
        return method(**arguments)

    return page


@dataclass
class OnboardingTestbed:
    """The handler's dependencies and their state."""

    iam: Any
    ec2: Any
    secrets: Any
    eks: FakeEks
    cluster: ServedCluster
    users: Users
    castai: State
    castai_url: str
    time: FakeTime = field(default_factory=lambda: FakeTime(START))
    writes: Writes = field(default_factory=Writes)
    functions: FakeLambda = field(default_factory=FakeLambda)
    agent: str = ""
    """The problem of the agent; empty: none."""
    documents: Sequence[Document] = ()
    """The policies of the caller of AWS; empty: every call is allowed."""

    @property
    def cluster_id(self) -> str:
        """CAST AI's id of the cluster."""
        return next(c.id for c in self.castai.clusters.values() if c.name == self.eks.name)

    @property
    def id8(self) -> str:
        return self.cluster_id[:8]

    @property
    def known(self) -> Any:
        """The cluster as it is registered at CAST AI."""
        return self.castai.clusters[self.cluster_id]

    def other_cluster(self, name: str, *, region: str = REGION) -> OnboardingTestbed:
        """A testbed for another cluster of the same account."""
        eks = FakeEks(name, region=region, vpc=self.eks.vpc)
        eks.endpoint, eks.ca_pem = self.eks.endpoint, self.eks.ca_pem
        eks.unique_id, eks.now = self.eks.unique_id, self.eks.now
        return replace(self, eks=eks)

    def node(self, data: dict[str, Any]) -> str:
        """Launch a node as CAST AI does. Returns its instance id."""
        return self.launch(data["InstanceProfileArn"], data["SecurityGroupId"])

    def launch(self, profile: str = "", group: str = "") -> str:
        """Launch an instance, by default with the onboarding's profile and security group."""
        if not profile:
            profiles = self.iam.list_instance_profiles()["InstanceProfiles"]
            profile = next(p["Arn"] for p in profiles if _made_by_us(p))
        if not group:
            groups = self.ec2.describe_security_groups()["SecurityGroups"]
            group = next(g["GroupId"] for g in groups if _made_by_us(g))
        image = self.ec2.register_image(Name=f"node-{len(self._images())}")["ImageId"]
        launched = self.ec2.run_instances(
            ImageId=image,
            MinCount=1,
            MaxCount=1,
            IamInstanceProfile={"Arn": profile},
            SecurityGroupIds=[group],
        )
        return str(launched["Instances"][0]["InstanceId"])

    def _images(self) -> list[Any]:
        return list(self.ec2.describe_images(Owners=["self"])["Images"])

    def terminate(self, node: str) -> None:
        """Terminate a node and delete its network interface, as EC2 does and moto does not."""
        self.ec2.terminate_instances(InstanceIds=[node])
        backend = ec2_backends[ACCOUNT][REGION]
        for key, interface in list(backend.enis.items()):
            if interface.instance is not None and interface.instance.id == node:
                del backend.enis[key]

    def set_state(self, node: str, state: str) -> None:
        """Set the state of an instance; moto skips the states that last seconds."""
        (instance,) = ec2_backends[ACCOUNT][REGION].get_multi_instances_by_id([node])
        instance._state.name = state

    def dependencies(self) -> Dependencies:
        rights = Rights(self.ec2, self.eks, self.eks.region, self.documents)

        def client(of: Any, service: str) -> Any:
            return RecordingClient(of, service, self.writes, rights)

        return Dependencies(
            clients=Clients(
                iam=client(self.iam, "iam"),
                ec2=client(self.ec2, "ec2"),
                eks=client(self.eks, "eks"),
                secrets=client(self.secrets, "secretsmanager"),
                functions=client(self.functions, "lambda"),
            ),
            place=Place("aws", self.eks.region, ACCOUNT),
            own_role=OWN_ROLE,
            open_api=lambda key, url, clock, until: CastaiApi(
                key, url, clock=clock, deadline=until
            ),
            agent_problem=lambda _kube: self.agent,
            open_kube=_open_kube,
            clock=self.time.clock,
        )

    def properties(self, **changes: Any) -> dict[str, Any]:
        properties = {
            "ServiceToken": "arn:aws:lambda:eu-central-1:123456789012:function:framework",
            "SchemaVersion": "1",
            "ClusterName": self.eks.name,
            "ApiUrl": self.castai_url,
            "ApiKeySecret": API_KEY_SECRET,
            "RequireAgent": "false",
        }
        properties |= changes
        return {key: value for key, value in properties.items() if value is not None}

    def event(
        self, kind: str, properties: dict[str, Any], *, resource: str = "Prod", **more: Any
    ) -> dict[str, Any]:
        return {
            "RequestType": kind,
            "StackId": STACK,
            "RequestId": "1",
            "LogicalResourceId": resource,
            "ResourceProperties": properties,
            "ResponseURL": "https://response.invalid/?signature=secret",
            **more,
        }

    def scope(self, path: str = "/") -> Scope:
        """The scope of the policies for onboarding this cluster."""
        return Scope("aws", self.eks.region, ACCOUNT, self.eks.name, "", "", path)

    def send(self, event: dict[str, Any]) -> dict[str, Any]:
        """Send a request to the function, which has the policies of the stack."""
        given = event["ResourceProperties"]
        self.documents = [
            *onboarder.onboarding_lambda(
                self.scope(given.get("Path", "/")),
                own_role_arn=OWN_ROLE,
                function="castai-onboarding-prod",
                account_wide=given.get("AccountWidePolicy") == "true",
                boundary=given.get("PermissionsBoundary"),
                api_key_secret=given.get("ApiKeySecret"),
            ).values()
        ]
        return handler.respond(event, self.dependencies(), remaining=REMAINING)

    def create(self, *, resource: str = "Prod", **changes: Any) -> dict[str, Any]:
        """Send a Create. Returns the attributes."""
        answer = self.send(self.event("Create", self.properties(**changes), resource=resource))
        data: dict[str, Any] = answer["Data"]
        return data

    def update(
        self, old: dict[str, Any], *, resource: str = "Prod", **changes: Any
    ) -> dict[str, Any]:
        """Send an Update from the properties with `old` to those with `changes`."""
        answer = self.send(
            self.event(
                "Update",
                self.properties(**changes),
                resource=resource,
                OldResourceProperties=self.properties(**old),
                PhysicalResourceId=f"castai-eks/{ACCOUNT}/{REGION}/{self.eks.name}",
            )
        )
        data: dict[str, Any] = answer["Data"]
        return data

    def delete(self, *, resource: str = "Prod", **changes: Any) -> dict[str, Any]:
        return self.send(
            self.event(
                "Delete",
                self.properties(**changes),
                resource=resource,
                PhysicalResourceId=f"castai-eks/{ACCOUNT}/{REGION}/{self.eks.name}",
            )
        )

    def keys(self, user: str) -> list[str]:
        found = self.iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
        return [key["AccessKeyId"] for key in found]

    def stored_key(self) -> dict[str, str]:
        text = self.secrets.get_secret_value(SecretId=f"castai-eks/{self.eks.name}/credentials")
        stored: dict[str, str] = json.loads(text["SecretString"])
        return stored

    def snapshot(self) -> dict[str, Any]:
        """All resources of account and cluster that the onboarding could change."""
        return {
            **self._identities(),
            "policies": {
                p["Arn"]: (
                    self.iam.get_policy_version(
                        PolicyArn=p["Arn"], VersionId=p["DefaultVersionId"]
                    )["PolicyVersion"]["Document"],
                    _tags(self.iam.list_policy_tags(PolicyArn=p["Arn"])),
                )
                for p in self.iam.list_policies(Scope="Local")["Policies"]
            },
            "profiles": {
                p["InstanceProfileName"]: ([r["RoleName"] for r in p["Roles"]], _tags(p))
                for p in self.iam.list_instance_profiles()["InstanceProfiles"]
            },
            "groups": {
                g["GroupName"]: (g["IpPermissions"], g["IpPermissionsEgress"], _tags(g))
                for g in self.ec2.describe_security_groups()["SecurityGroups"]
            },
            "secrets": {
                s["Name"]: (
                    self.secrets.get_secret_value(SecretId=s["Name"])["SecretString"],
                    _tags(s),
                    s.get("KmsKeyId"),
                )
                for s in self.secrets.list_secrets()["SecretList"]
            },
            "entries": {
                arn: (e.kind, tuple(e.groups), tuple(e.policies), dict(e.tags))
                for arn, e in self.eks.entries.items()
            },
            "aws-auth": (self.cluster.get("ConfigMap", "aws-auth", "kube-system") or {}).get(
                "data"
            ),
            "rbac": {
                kind: (self.cluster.get(kind, "castai-spot-handler") or {}).get(part)
                for kind, part in (("ClusterRole", "rules"), ("ClusterRoleBinding", "subjects"))
            },
        }

    def _identities(self) -> dict[str, Any]:
        iam = self.iam
        return {
            "users": {
                u["UserName"]: (
                    _attached(iam.list_attached_user_policies(UserName=u["UserName"])),
                    {
                        n: iam.get_user_policy(UserName=u["UserName"], PolicyName=n)[
                            "PolicyDocument"
                        ]
                        for n in iam.list_user_policies(UserName=u["UserName"])["PolicyNames"]
                    },
                    _tags(iam.list_user_tags(UserName=u["UserName"])),
                    self.keys(u["UserName"]),
                )
                for u in iam.list_users()["Users"]
            },
            "roles": {
                r["RoleName"]: (
                    r["AssumeRolePolicyDocument"],
                    _attached(iam.list_attached_role_policies(RoleName=r["RoleName"])),
                    {
                        n: iam.get_role_policy(RoleName=r["RoleName"], PolicyName=n)[
                            "PolicyDocument"
                        ]
                        for n in iam.list_role_policies(RoleName=r["RoleName"])["PolicyNames"]
                    },
                    _tags(iam.list_role_tags(RoleName=r["RoleName"])),
                    r.get("PermissionsBoundary"),
                )
                for r in iam.list_roles()["Roles"]
            },
        }


def _open_kube(cluster: Cluster, clock: Clock, until: float, refusals_pass_until: float) -> Kube:
    return connect(
        cluster,
        Token(lambda: "k8s-aws-v1.test"),
        clock=clock,
        until=until,
        refusals_pass_until=refusals_pass_until,
    )


def _tags(thing: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}


def _made_by_us(thing: Any) -> bool:
    return CLUSTER_TAG in _tags(thing)


def _attached(answer: Any) -> list[str]:
    return sorted(policy["PolicyArn"] for policy in answer["AttachedPolicies"])


@pytest.fixture(scope="session")
def users() -> Users:
    return Users()


@pytest.fixture(scope="session")
def api_server(users: Users) -> Iterator[ServedCluster]:
    """One API server for all tests: its start takes longer than a test."""
    with ServedCluster(authenticators=(users,)) as cluster:
        yield cluster


ClientOf = Callable[[str], Any]


@pytest.fixture
def client_of() -> ClientOf:
    """The account's client of a service, without HTTP. THROUGH_THE_SDK replaces it."""
    return lambda service: Moto(service, REGION)


THROUGH_THE_SDK = pytest.mark.parametrize("client_of", [sdk_client], ids=["sdk"])
"""The test's calls of AWS become requests of the SDK, and its answers come from their text.

It takes four times as long: the integration tests do so with every call.
"""


@pytest.fixture
def testbed(
    api_server: ServedCluster, users: Users, castai_server: CastaiServer, client_of: ClientOf
) -> Iterator[OnboardingTestbed]:
    castai = State(API_KEY)
    time = FakeTime(START)
    with aws_environment(REGION), mock_aws(), as_aws(lambda: time.now):
        aws.session.cache_clear()
        add_managed_policies()
        ec2 = client_of("ec2")
        secrets = client_of("secretsmanager")
        secrets.create_secret(Name=API_KEY_SECRET, SecretString=API_KEY)
        eks = FakeEks("prod", region=REGION, vpc=ec2.describe_vpcs()["Vpcs"][0]["VpcId"])
        eks.endpoint, eks.ca_pem = api_server.endpoint, api_server.ca_pem
        users.refusals = 0
        iam = client_of("iam")
        eks.now = lambda: time.now
        eks.unique_id = unique_id
        users.admits = lambda: eks.admits(OWN_ROLE) and bool(eks.entries[OWN_ROLE].policies)
        yield OnboardingTestbed(
            iam=iam,
            ec2=ec2,
            secrets=secrets,
            eks=eks,
            cluster=api_server,
            users=users,
            castai=castai,
            castai_url=castai_server.serve(castai),
            time=time,
        )
    aws.session.cache_clear()
    for kind, name, namespace in (
        ("ConfigMap", "aws-auth", "kube-system"),
        ("ConfigMap", "castai-agent-metadata", "castai-agent"),
        ("ClusterRole", "castai-spot-handler", ""),
        ("ClusterRoleBinding", "castai-spot-handler", ""),
    ):
        if api_server.get(kind, name, namespace):
            api_server.delete(kind, name, namespace)
    api_server.faults.clear()
