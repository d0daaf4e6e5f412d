"""The launcher's additions to the emulator, tested through AWS's API.

The other tests rely on them: if the emulator allowed what AWS denies, our policies would seem to be
sufficient.
"""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError

from lambdas.onboarding.policies import castai_identity
from lambdas.onboarding.policies.scope import Permissions, Scope
from sandbox import emulator_process, wait
from sandbox.aws import Aws
from sandbox.state import State
from tests.integration.pool import SOON

_numbers = itertools.count(1)
NODE_POLICY = "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"
ALLOW_NOTHING = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}],
    }
)
TAG = "aws:RequestTag/owner"
LAUNCHED_WITH_AN_INSTANCE = [
    f"arn:aws:ec2:*:*:{kind}/*"
    for kind in ("image", "network-interface", "security-group", "subnet", "volume")
]
CLUSTER_ID = "00000000-0000-4000-8000-000000000001"
ADMIN_POLICY = "arn:aws:iam::aws:policy/AdministratorAccess"


class User:
    """An IAM user with the permissions that a test gives."""

    def __init__(self, account: Aws) -> None:
        self._account = account
        self.name = f"tester-{next(_numbers)}"
        account.iam.create_user(UserName=self.name)
        self._key = account.iam.create_access_key(UserName=self.name)["AccessKey"]

    def allow(self, *statements: dict[str, Any]) -> None:
        """Replace the user's permissions. A statement without Resource is for every resource."""
        document = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Resource": "*", **found} for found in statements],
        }
        self._account.iam.put_user_policy(
            UserName=self.name, PolicyName="p", PolicyDocument=json.dumps(document)
        )

    def attach(self, *documents: dict[str, Any]) -> None:
        """Give the user these policies."""
        for number, document in enumerate(documents):
            self._account.iam.put_user_policy(
                UserName=self.name, PolicyName=f"d{number}", PolicyDocument=json.dumps(document)
            )

    def client(self, service: str) -> Any:
        session = boto3.Session(
            self._key["AccessKeyId"],
            self._key["SecretAccessKey"],
            region_name=self._account.region,
        )
        options = self._account.client_options()
        return session.client(service, **options)  # type: ignore[call-overload]


@pytest.fixture
def user(account: Aws) -> User:
    return User(account)


@pytest.fixture
def role(account: Aws) -> Iterator[str]:
    """The name of a role that EC2 and Lambda may assume."""
    name = f"role-{next(_numbers)}"
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": ["ec2.amazonaws.com", "lambda.amazonaws.com"]},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    account.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    yield name
    for policy in account.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        account.iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
    account.iam.delete_role(RoleName=name)


def denied(call: Callable[..., Any], **arguments: Any) -> str:
    """Make a call that has to be denied. Returns the message."""
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    assert refused.value.response["Error"]["Code"] in (
        "AccessDenied",
        "AccessDeniedException",
        "UnauthorizedOperation",
    )
    return refused.value.response["Error"]["Message"]


def only_if(key: str, value: str) -> dict[str, Any]:
    return {"Condition": {"StringEquals": {key: value}}}


def test_iam_policy_arn_limits_the_attached_policies(user: User, role: str) -> None:
    user.allow({"Action": "iam:AttachRolePolicy", **only_if("iam:PolicyARN", NODE_POLICY)})
    attach = user.client("iam").attach_role_policy
    denied(attach, RoleName=role, PolicyArn=ADMIN_POLICY)
    attach(RoleName=role, PolicyArn=NODE_POLICY)


def test_iam_permissions_boundary_is_required_for_a_new_role(user: User, account: Aws) -> None:
    user.allow({"Action": "iam:CreateRole", **only_if("iam:PermissionsBoundary", ADMIN_POLICY)})
    create = user.client("iam").create_role
    trust = '{"Version":"2012-10-17","Statement":[]}'
    denied(create, RoleName="unbounded", AssumeRolePolicyDocument=trust)
    create(RoleName="bounded", AssumeRolePolicyDocument=trust, PermissionsBoundary=ADMIN_POLICY)
    account.iam.delete_role(RoleName="bounded")


def test_the_path_is_a_part_of_a_new_roles_arn(user: User, account: Aws) -> None:
    ours = f"arn:aws:iam::{account.account}:role/ours/*"
    user.allow({"Action": ["iam:CreateRole", "iam:DeleteRole"], "Resource": ours})
    iam, trust = user.client("iam"), '{"Version":"2012-10-17","Statement":[]}'
    denied(iam.create_role, RoleName="placed", AssumeRolePolicyDocument=trust)
    iam.create_role(RoleName="placed", Path="/ours/", AssumeRolePolicyDocument=trust)
    iam.delete_role(RoleName="placed")


def test_a_function_with_a_role_needs_pass_role_to_lambda(
    user: User, account: Aws, role: str
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("main.py", "")
    function: dict[str, Any] = {
        "FunctionName": role,
        "Runtime": "python3.13",
        "Role": f"arn:aws:iam::{account.account}:role/{role}",
        "Handler": "main.handler",
        "Code": {"ZipFile": archive.getvalue()},
    }
    create = user.client("lambda").create_function
    user.allow({"Action": "lambda:CreateFunction"})
    assert "iam:PassRole" in denied(create, **function)
    user.allow(
        {"Action": "lambda:CreateFunction"},
        {"Action": "iam:PassRole", **only_if("iam:PassedToService", "ec2.amazonaws.com")},
    )
    assert "iam:PassRole" in denied(create, **function)
    user.allow(
        {"Action": "lambda:CreateFunction"},
        {"Action": "iam:PassRole", **only_if("iam:PassedToService", "lambda.amazonaws.com")},
    )
    create(**function)
    account.functions.delete_function(FunctionName=role)


def test_a_role_in_an_instance_profile_needs_pass_role(user: User, account: Aws, role: str) -> None:
    account.iam.create_instance_profile(InstanceProfileName=role)
    add = user.client("iam").add_role_to_instance_profile
    user.allow({"Action": "iam:AddRoleToInstanceProfile"})
    assert "iam:PassRole" in denied(add, InstanceProfileName=role, RoleName=role)
    user.allow({"Action": ["iam:AddRoleToInstanceProfile", "iam:PassRole"]})
    add(InstanceProfileName=role, RoleName=role)
    launch = user.client("ec2").run_instances
    user.allow({"Action": "ec2:RunInstances"})
    arguments: dict[str, Any] = {"ImageId": "ami-0123", "MinCount": 1, "MaxCount": 1}
    assert "iam:PassRole" in denied(launch, IamInstanceProfile={"Name": role}, **arguments)
    account.iam.remove_role_from_instance_profile(InstanceProfileName=role, RoleName=role)
    account.iam.delete_instance_profile(InstanceProfileName=role)


def test_tag_conditions_limit_launch_and_termination_of_instances(user: User, account: Aws) -> None:
    launch, end = user.client("ec2").run_instances, user.client("ec2").terminate_instances
    instances = f"arn:aws:ec2:{account.region}:{account.account}:instance/*"
    may_launch = (
        {"Action": "ec2:RunInstances", "Resource": instances, **only_if(TAG, "us")},
        {"Action": "ec2:RunInstances", "Resource": LAUNCHED_WITH_AN_INSTANCE},
    )
    user.allow(*may_launch)
    arguments: dict[str, Any] = {"ImageId": "ami-0123", "MinCount": 1, "MaxCount": 1}
    assert "ec2:RunInstances on resource: " + instances in denied(launch, **arguments)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "owner", "Value": "us"}]}]
    assert "ec2:CreateTags" in denied(launch, TagSpecifications=tags, **arguments)
    create_tags = {"Action": "ec2:CreateTags", **only_if("ec2:CreateAction", "RunInstances")}
    user.allow(*may_launch, create_tags)
    ours = launch(TagSpecifications=tags, **arguments)["Instances"][0]["InstanceId"]
    theirs = account.ec2.run_instances(**arguments)["Instances"][0]["InstanceId"]
    user.allow({"Action": "ec2:TerminateInstances", **only_if("ec2:ResourceTag/owner", "us")})
    denied(end, InstanceIds=[theirs])
    denied(end, InstanceIds=[ours, theirs])
    end(InstanceIds=[ours])


def test_castai_launches_in_the_clusters_shared_vpc_and_not_elsewhere(
    user: User, account: Aws
) -> None:
    """With its own policies; the VPC is one that another account shares."""
    ec2, owner = account.ec2, "222233334444"
    ours, theirs = (ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"] for _ in range(2))
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]
        for vpc in (ours, theirs)
    ]
    account.share_vpc(ours, owner)
    [shared] = ec2.describe_subnets(SubnetIds=subnets[:1])["Subnets"]
    [vpc] = ec2.describe_vpcs(VpcIds=[ours])["Vpcs"]
    assert shared["OwnerId"] == vpc["OwnerId"] == owner
    scope = Scope("aws", account.region, account.account, "shared", CLUSTER_ID, ours)
    user.attach(
        castai_identity.cast_eks_policy(
            scope, Permissions.FULL, manage_spot_lambda=False, boundary=None
        ),
        castai_identity.restricted_access(scope, Permissions.FULL),
    )
    castai = user.client("ec2")
    marked = [{"Key": scope.cluster_tag, "Value": "owned"}]
    tags = [{"ResourceType": kind, "Tags": marked} for kind in ("instance", "volume")]
    of_group = [{"ResourceType": "security-group", "Tags": marked}]
    group: dict[str, Any] = {
        "GroupName": "nodes",
        "Description": "x",
        "TagSpecifications": of_group,
    }
    made = castai.create_security_group(VpcId=ours, **group)["GroupId"]
    assert f"vpc/{theirs}" in denied(castai.create_security_group, VpcId=theirs, **group)
    node: dict[str, Any] = {"ImageId": "ami-0123", "MinCount": 1, "MaxCount": 1}
    launched = castai.run_instances(
        SubnetId=subnets[0], SecurityGroupIds=[made], TagSpecifications=tags, **node
    )["Instances"][0]["InstanceId"]
    assert "instance/*" in denied(castai.run_instances, SubnetId=subnets[0], **node)
    elsewhere = denied(castai.run_instances, SubnetId=subnets[1], TagSpecifications=tags, **node)
    assert f"{account.account}:subnet/{subnets[1]}" in elsewhere
    castai.terminate_instances(InstanceIds=[launched])
    castai.delete_security_group(GroupId=made)


def test_ec2_vpc_limits_changes_of_security_groups(user: User, account: Aws, state: State) -> None:
    vpcs = account.ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": [state.cluster]}])
    vpc = vpcs["Vpcs"][0]["VpcId"]
    ours = account.ec2.create_security_group(GroupName="ours", Description="x", VpcId=vpc)[
        "GroupId"
    ]
    theirs = account.ec2.create_security_group(GroupName="theirs", Description="x")["GroupId"]
    arn = f"arn:aws:ec2:{account.region}:{account.account}:vpc/{vpc}"
    user.allow({"Action": "ec2:AuthorizeSecurityGroupIngress", **only_if("ec2:Vpc", arn)})
    rule: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "CidrIp": "10.0.0.0/8"}
    authorize = user.client("ec2").authorize_security_group_ingress
    denied(authorize, GroupId=theirs, **rule)
    authorize(GroupId=ours, **rule)
    for group in (ours, theirs):
        account.ec2.delete_security_group(GroupId=group)


def test_a_security_group_of_an_instance_cannot_be_deleted_and_the_instance_is_found(
    account: Aws,
) -> None:
    ec2 = account.ec2
    group = ec2.create_security_group(GroupName="busy", Description="x")["GroupId"]
    account.iam.create_instance_profile(InstanceProfileName="busy")
    profile = account.iam.get_instance_profile(InstanceProfileName="busy")["InstanceProfile"]["Arn"]
    arguments: dict[str, Any] = {"ImageId": "ami-0123", "MinCount": 1, "MaxCount": 1}
    other = ec2.run_instances(**arguments)["Instances"][0]["InstanceId"]
    node = ec2.run_instances(
        **arguments, SecurityGroupIds=[group], IamInstanceProfile={"Arn": profile}
    )["Instances"][0]["InstanceId"]
    held = ec2.describe_instances(
        Filters=[{"Name": "iam-instance-profile.arn", "Values": [profile]}]
    )["Reservations"]
    assert [each["InstanceId"] for found in held for each in found["Instances"]] == [node]
    (interface,) = ec2.describe_network_interfaces(
        Filters=[{"Name": "group-id", "Values": [group]}]
    )["NetworkInterfaces"]
    assert interface["Attachment"]["InstanceId"] == node
    with pytest.raises(ClientError, match="DependencyViolation"):
        ec2.delete_security_group(GroupId=group)
    ec2.terminate_instances(InstanceIds=[node, other])
    ec2.delete_security_group(GroupId=group)
    account.iam.delete_instance_profile(InstanceProfileName="busy")


def test_a_security_group_that_a_rule_names_cannot_be_deleted_and_the_rule_is_found(
    account: Aws,
) -> None:
    ec2 = account.ec2
    named, naming = (
        ec2.create_security_group(GroupName=name, Description="x")["GroupId"]
        for name in ("named", "naming")
    )
    rule: Any = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": named}]}]
    for direction, authorize, revoke in (
        ("", ec2.authorize_security_group_ingress, ec2.revoke_security_group_ingress),
        ("egress.", ec2.authorize_security_group_egress, ec2.revoke_security_group_egress),
    ):
        by: Any = [{"Name": f"{direction}ip-permission.group-id", "Values": [named]}]
        assert ec2.describe_security_groups(Filters=by)["SecurityGroups"] == []
        authorize(GroupId=naming, IpPermissions=rule)
        (found,) = ec2.describe_security_groups(Filters=by)["SecurityGroups"]
        assert found["GroupId"] == naming
        with pytest.raises(ClientError, match="DependencyViolation"):
            ec2.delete_security_group(GroupId=named)
        revoke(GroupId=naming, IpPermissions=rule)
    for group in (named, naming):
        ec2.delete_security_group(GroupId=group)


def test_the_resource_limits_the_access_entries_that_may_be_deleted(
    user: User, account: Aws, state: State, role: str
) -> None:
    principal = f"arn:aws:iam::{account.account}:role/{role}"
    account.eks.create_access_entry(clusterName=state.cluster, principalArn=principal)
    delete = user.client("eks").delete_access_entry
    prefix = f"arn:aws:eks:{account.region}:{account.account}:access-entry/{state.cluster}/role"
    user.allow(
        {
            "Action": "eks:DeleteAccessEntry",
            "Resource": f"{prefix}/{account.account}/other/*",
        }
    )
    denied(delete, clusterName=state.cluster, principalArn=principal)
    user.allow(
        {"Action": "eks:DeleteAccessEntry", "Resource": f"{prefix}/{account.account}/{role}/*"}
    )
    delete(clusterName=state.cluster, principalArn=principal)


def test_a_cluster_is_in_the_vpc_of_its_subnets(account: Aws, state: State) -> None:
    network = account.eks.describe_cluster(name=state.cluster)["cluster"]["resourcesVpcConfig"]
    subnets = account.ec2.describe_subnets(SubnetIds=network["subnetIds"])["Subnets"]
    assert {subnet["VpcId"] for subnet in subnets} == {network["vpcId"]}


def refused(call: Callable[..., Any], **arguments: Any) -> str:
    """Make a call that has to fail. Returns code and message."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    found = error.value.response["Error"]
    return f"{found['Code']}: {found['Message']}"


def test_iam_refuses_to_delete_what_is_in_use(account: Aws, user: User, role: str) -> None:
    iam: Any = account.iam
    policy = iam.create_policy(PolicyName=role, PolicyDocument=ALLOW_NOTHING)["Policy"]["Arn"]
    iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    assert "attached" in refused(iam.delete_policy, PolicyArn=policy)
    assert "detach all policies" in refused(iam.delete_role, RoleName=role)
    iam.detach_role_policy(RoleName=role, PolicyArn=policy)
    iam.create_policy_version(PolicyArn=policy, PolicyDocument=ALLOW_NOTHING)
    assert "more than one version" in refused(iam.delete_policy, PolicyArn=policy)
    iam.delete_policy_version(PolicyArn=policy, VersionId="v2")
    iam.delete_policy(PolicyArn=policy)
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=ALLOW_NOTHING)
    assert "delete all inline policies" in refused(iam.delete_role, RoleName=role)
    iam.delete_role_policy(RoleName=role, PolicyName="p")
    iam.create_instance_profile(InstanceProfileName=role)
    iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    assert "DeleteConflict" in refused(iam.delete_instance_profile, InstanceProfileName=role)
    assert "instance profiles" in refused(iam.delete_role, RoleName=role)
    iam.remove_role_from_instance_profile(InstanceProfileName=role, RoleName=role)
    iam.delete_instance_profile(InstanceProfileName=role)
    assert "access keys" in refused(iam.delete_user, UserName=user.name)
    for key in iam.list_access_keys(UserName=user.name)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=user.name, AccessKeyId=key["AccessKeyId"])
    user.allow({"Action": "ec2:RunInstances"})
    assert "DeleteConflict" in refused(iam.delete_user, UserName=user.name)
    iam.delete_user_policy(UserName=user.name, PolicyName="p")
    iam.create_group(GroupName=role)
    iam.add_user_to_group(GroupName=role, UserName=user.name)
    assert "from group" in refused(iam.delete_user, UserName=user.name)
    iam.remove_user_from_group(GroupName=role, UserName=user.name)
    iam.delete_group(GroupName=role)
    iam.delete_user(UserName=user.name)


def test_a_deleted_secret_keeps_its_name_for_a_while(account: Aws) -> None:
    secrets, name = account.secrets, {"SecretId": "deleted"}
    ending = "InvalidRequestException: You can't create this secret because a secret with this name"
    secrets.create_secret(Name="deleted", SecretString="a")
    secrets.delete_secret(**name)
    assert refused(secrets.create_secret, Name="deleted", SecretString="b").startswith(ending)
    marked = "InvalidRequestException: You can't perform this operation"
    assert refused(secrets.get_secret_value, **name).startswith(marked)
    assert refused(secrets.tag_resource, **name, Tags=[]).startswith(marked)
    secrets.restore_secret(**name)
    assert secrets.get_secret_value(**name)["SecretString"] == "a"
    secrets.delete_secret(**name, ForceDeleteWithoutRecovery=True)
    assert "ResourceNotFoundException" in refused(secrets.get_secret_value, **name)
    assert refused(secrets.create_secret, Name="deleted", SecretString="b").startswith(ending)
    secrets.create_secret(Name="deleted", SecretString="b")
    secrets.delete_secret(**name, ForceDeleteWithoutRecovery=True)


def test_a_fault_on_demand_is_the_services_own_error_and_changes_nothing(account: Aws) -> None:
    options = account.client_options() | {"config": Config(retries={"total_max_attempts": 1})}
    calls: dict[str, tuple[str, str, dict[str, str]]] = {
        "iam": ("CreateUser", "Throttling", {"UserName": "faulty"}),
        "ec2": ("DescribeInstances", "RequestLimitExceeded", {}),
        "eks": ("DescribeCluster", "ThrottlingException", {"name": "demo"}),
        "lambda": ("ListFunctions", "TooManyRequestsException", {}),
        "secretsmanager": ("ListSecrets", "ThrottlingException", {}),
    }
    for service, (operation, code, arguments) in calls.items():
        client = account.session.client(service, **options)  # type: ignore[call-overload]
        call = getattr(client, xform_name(operation))
        account.fail(service, operation)
        assert refused(call, **arguments) == f"{code}: Rate exceeded"
        call(**arguments)
    account.iam.delete_user(UserName="faulty")
    account.fail("iam", "CreateUser", "EntityAlreadyExists", message="exists", times=2)
    for _ in range(2):
        found = refused(account.iam.create_user, UserName="faulty")
        assert found == "EntityAlreadyExists: exists"
    account.fail("iam", "DeleteRole", "DeleteConflict")
    assert [fault["operation"] for fault in account.faults_left()] == ["DeleteRole"]
    account.clear_faults()
    assert account.faults_left() == []


TEMPLATE = {
    "Resources": {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "of-a-stack"}},
        "Role": {
            "Type": "AWS::IAM::Role",
            "DependsOn": "Queue",
            "Properties": {"RoleName": "of-a-stack", "AssumeRolePolicyDocument": {"Statement": []}},
        },
    }
}


def test_a_stack_changes_only_what_its_role_may(account: Aws, user: User) -> None:
    """As after a bootstrap with a narrower execution policy."""
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "cloudformation.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = account.iam.create_role(RoleName="execution", AssumeRolePolicyDocument=document)
    queues = {"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}
    account.iam.put_role_policy(
        RoleName="execution",
        PolicyName="queues",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [queues]}),
    )
    options: dict[str, Any] = {
        "StackName": "narrow",
        "TemplateBody": json.dumps(TEMPLATE),
        "RoleARN": role["Role"]["Arn"],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
    }
    user.allow({"Action": "cloudformation:*"})
    assert "iam:PassRole" in denied(user.client("cloudformation").create_stack, **options)
    formation = account.session.client("cloudformation", **account.client_options())
    formation.create_stack(**options)

    def status() -> str:
        found = formation.describe_stacks(StackName="narrow")["Stacks"][0]["StackStatus"]
        return "" if found.endswith("IN_PROGRESS") else str(found)

    assert wait.until(status, "the stack's end", timeout=SOON) == "ROLLBACK_COMPLETE"
    reasons = [
        event.get("ResourceStatusReason", "")
        for event in formation.describe_stack_events(StackName="narrow")["StackEvents"]
        if event["ResourceStatus"] == "CREATE_FAILED"
    ]
    assert "not authorized to perform: iam:CreateRole on resource" in reasons[0]
    assert "execution/AWSCloudFormation" in reasons[0]
    queues_left = account.sqs.list_queues(QueueNamePrefix="of-a-stack").get("QueueUrls", [])
    assert queues_left == []
    formation.delete_stack(StackName="narrow")
    account.iam.delete_role_policy(RoleName="execution", PolicyName="queues")
    account.iam.delete_role(RoleName="execution")


QUEUE_POLICY = """{
  "Version": "2012-10-17",
  "Statement": [{
    "Effect": "Allow",
    "Principal": {"Service": "events.amazonaws.com"},
    "Action": "sqs:SendMessage",
    "Resource": "*"
  }]
}"""


@pytest.fixture
def function(account: Aws, role: str) -> Iterator[str]:
    """The ARN of a function that returns its event's detail."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("main.py", "def handler(event, context):\n    return event['detail']\n")
    yield account.functions.create_function(
        FunctionName=role,
        Runtime="python3.13",
        Role=f"arn:aws:iam::{account.account}:role/{role}",
        Handler="main.handler",
        Code={"ZipFile": archive.getvalue()},
    )["FunctionArn"]
    account.functions.delete_function(FunctionName=role)


def test_a_rule_invokes_a_function_only_with_its_permission(
    account: Aws, function: str, role: str
) -> None:
    """Without the permission the event goes to the dead-letter queue of the rule's target."""
    queue = account.sqs.create_queue(QueueName=role, Attributes={"Policy": QUEUE_POLICY})[
        "QueueUrl"
    ]
    queue_arn = f"arn:aws:sqs:{account.region}:{account.account}:{role}"
    pattern = {"source": ["aws.test"], "detail": {"for": [role]}}
    rule = account.events.put_rule(Name=role, EventPattern=json.dumps(pattern))["RuleArn"]
    account.events.put_targets(
        Rule=role,
        Targets=[{"Id": "f", "Arn": function, "DeadLetterConfig": {"Arn": queue_arn}}],
    )
    event = {
        "source": "aws.test",
        "detail-type": "test",
        "time": "2026-01-31T12:00:00Z",
        "detail": {"for": role},
    }
    try:
        refused = account.publish(event)
        [message] = account.sqs.receive_message(QueueUrl=queue)["Messages"]
        assert json.loads(message["Body"])["id"] == refused
        assert account.deliveries(refused) == []

        account.functions.add_permission(
            FunctionName=role,
            StatementId="rule",
            Action="lambda:InvokeFunction",
            Principal="events.amazonaws.com",
            SourceArn=rule,
        )
        accepted = account.publish(event)
        delivery = wait.until(
            lambda: [d for d in account.deliveries(accepted) if d["state"] == "succeeded"],
            "the function's answer",
            timeout=SOON,
        )
        assert delivery[0]["result"] == {"for": role}
    finally:
        account.events.remove_targets(Rule=role, Ids=["f"])
        account.events.delete_rule(Name=role)
        account.sqs.delete_queue(QueueUrl=queue)


SHOW_LEVEL = """
import logging
level = logging.getLogger().level
def handler(event, context):
    return [level, len(logging.root.handlers)]
"""


def test_the_root_logger_has_the_functions_level_before_the_handler_is_imported(
    account: Aws, role: str
) -> None:
    """The DEBUG lines of a library are in the log, as on AWS."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("main.py", SHOW_LEVEL)
    for format_, level, expected in (("JSON", "DEBUG", 10), ("Text", None, 30)):
        logging = {"LogFormat": format_, **({"ApplicationLogLevel": level} if level else {})}
        account.functions.create_function(
            FunctionName=role,
            Runtime="python3.13",
            Role=f"arn:aws:iam::{account.account}:role/{role}",
            Handler="main.handler",
            Code={"ZipFile": archive.getvalue()},
            LoggingConfig=logging,  # type: ignore[arg-type]
        )
        answer = account.functions.invoke(FunctionName=role)["Payload"].read()
        account.functions.delete_function(FunctionName=role)
        assert json.loads(answer) == [expected, 1]


def test_a_changed_emulator_is_an_error_at_its_start() -> None:
    code = (
        "from ministack.services import eks\n"
        "eks._create_access_entry = lambda body: None\n"
        "import access_entry\n"
        "access_entry.install()\n"
    )
    failed = subprocess.run(  # noqa: S603 - our own interpreter and code
        [emulator_process.PYTHON, "-c", code],
        cwd=emulator_process.LAUNCHER.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode != 0
    last = failed.stderr.strip().splitlines()[-1]
    assert "EmulatorChangedError: Install the emulator version" in last
    assert "_create_access_entry takes ('body',)" in last


def test_our_packages_cannot_be_imported_in_the_emulators_environment() -> None:
    """Otherwise a dependency that is missing in a zip would be found here."""
    for name in ("lambdas", "sandbox", "httpx2", "msgspec", "lightkube", "aws_lambda_powertools"):
        found = subprocess.run(  # noqa: S603 - our own interpreter
            [emulator_process.PYTHON, "-c", f"import {name}"],
            cwd="/",
            capture_output=True,
            check=False,
        )
        assert found.returncode != 0, f"{name} is importable in the emulator's environment"
