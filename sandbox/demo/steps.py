"""What happens in each chapter of the demo: it is done, shown, and checked."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from lightkube.resources.core_v1 import ConfigMap
from lightkube.resources.rbac_authorization_v1 import ClusterRole

from lambdas.common.names import AGENT, SPOT_HANDLER, SPOT_HANDLER_GROUP
from sandbox import kubernetes, wait
from sandbox.aws import spot_notice
from sandbox.demo import checks, inventory
from sandbox.demo.checks import DemoError
from sandbox.demo.inventory import Thing
from sandbox.demo.session import Stage
from sandbox.demo.timeline import Story
from sandbox.demo.watcher import Following
from sandbox.kubernetes import Right, Somebody

NOTICE = 120.0  # s between a spot notice and the end of the instance
ENDED = ("succeeded", "failed", "expired", "discarded")
NOT_YET = 400  # CAST AI's answer for credentials that do not work
COMING_BACK = 20.0  # s for replacements to be ready after the drain


THE_AGENT = Somebody("the agent", f"system:serviceaccount:{AGENT}:{AGENT}")
THE_HANDLER = Somebody("the spot handler", SPOT_HANDLER, SPOT_HANDLER_GROUP)

# What is asked of Kubernetes on behalf of the agent and of the spot handler.
READ = {"list pods": Right("list", "pods"), "list nodes": Right("list", "nodes")}
DRAIN = {
    "cordon nodes": Right("patch", "nodes"),
    "evict pods": Right("create", "pods/eviction"),
    "delete pods": Right("delete", "pods"),
}
NEVER = {
    "delete nodes": Right("delete", "nodes"),
    "create pods": Right("create", "pods"),
    "read secrets": Right("get", "secrets"),
    "change roles": Right("update", "clusterroles", "rbac.authorization.k8s.io"),
}

# What the onboarding makes by the names that CAST AI knows, and what it is for.
MADE_FOR_CASTAI = (
    ("IAM role", "cast-eks-", "CAST AI acts as this role, in this account alone"),
    ("IAM policy", "CastEKSPolicy", "what the role may do: run instances for the cluster"),
    ("IAM role", "cast-", "what the nodes are that CAST AI adds"),
    ("instance profile", "cast-", "the same, as EC2 wants it"),
    ("security group", "cast-", "around those nodes"),
    ("access entry", "cast-", "lets those nodes, and nothing else, join the cluster"),
)

PURPOSES = [why for _kind, _start, why in MADE_FOR_CASTAI]


def account(stage: Stage) -> None:
    """The sandbox, ready for deployments: what every account has before CAST AI comes."""
    state = stage.state
    nodes, pods = kubernetes.count(stage.cluster)
    stage.view.step("one CDK app, a stack for each of the next three chapters, by these settings:")
    stage.view.table(stage.settings.items())
    with stage.view.doing("cdk synth"):
        stage.cdk.synth(stage.settings)
    with stage.view.doing("cdk bootstrap, as once in every account"):
        stage.cdk.bootstrap()
    stage.before = stage.inventory()
    stage.view.step(f"account {state.account}, region {state.region}, cluster {state.cluster}")
    stage.view.step(f"{nodes} nodes with {pods} pods, all of them ready")


def connect(stage: Stage) -> None:
    """The agent's stack; its objects, its rights, and that CAST AI sees it."""
    stage.play_the_agent()
    made = _deploy(stage, AGENT)
    ours = [(kind, name) for kind, name in made if AGENT in name and kind in inventory.CLUSTER]
    stage.view.step("in the cluster:")
    stage.view.table(ours)
    rules = stage.cluster.get(ClusterRole, AGENT).rules or []
    verbs = sorted({verb for rule in rules for verb in rule.verbs})
    if verbs != ["get", "list", "watch"]:
        raise DemoError(f"the agent's ClusterRole is not read-only: {', '.join(verbs)}")
    _ask(stage, THE_AGENT, READ, {**DRAIN, **NEVER})
    cluster = _at_castai(stage)
    if cluster["agent_status"] != "online":
        raise DemoError(f"CAST AI sees the agent as {cluster['agent_status']}")
    stage.view.step(f"CAST AI sees the agent of cluster {cluster['name']}: online")


def onboard(stage: Stage) -> None:
    """The onboarding's stack, with the spot handler's: what it made, and what CAST AI was told."""
    made = _deploy(stage, "castai-onboarding", f", and {SPOT_HANDLER}, on which it stands")
    explained = {thing: why for thing in made if (why := _purpose(thing))}
    stage.view.step("for CAST AI:")
    stage.view.table(
        (kind, _short(name), why)
        for (kind, name), why in sorted(explained.items(), key=lambda each: PURPOSES.index(each[1]))
    )
    rest = [thing for thing in made if thing not in explained and thing[0] in inventory.ACCOUNT]
    stage.view.step(f"and what did it: {inventory.told(rest)}")
    cluster = _at_castai(stage)
    role = cluster["credentials"].get("role", "")
    stage.view.step(f"CAST AI was given {role}")
    stage.view.step(f"which it knows again by {cluster['credentials'].get('fingerprint')}")
    if ("IAM role", _short(role)) not in explained:
        raise DemoError(f"CAST AI has no role of this account: {cluster['credentials']}")
    _trusts_castai_only(stage, _short(role), cluster)
    _is_unknown_to_kubernetes(stage, role)


def handler(stage: Stage) -> None:
    """What came with the onboarding: rule, function, and rights in the cluster."""
    outputs = stage.cdk.outputs()
    rule = f"{SPOT_HANDLER}-SpotInterruption"
    targets = stage.aws.events.list_targets_by_rule(Rule=rule)["Targets"]
    if [target["Arn"].rpartition(":")[2] for target in targets] != [SPOT_HANDLER]:
        raise DemoError(f"rule {rule} does not call {SPOT_HANDLER}: {targets}")
    stage.view.step(f"rule {rule} → function {outputs['FunctionName']}")
    entry = stage.aws.eks.describe_access_entry(
        clusterName=stage.state.cluster, principalArn=outputs["RoleArn"]
    )["accessEntry"]
    if entry["kubernetesGroups"] != [SPOT_HANDLER_GROUP]:
        raise DemoError(f"the access entry is of the groups {entry['kubernetesGroups']}")
    stage.view.step(
        f"role {_short(outputs['RoleArn'])} is in the cluster's group {SPOT_HANDLER_GROUP}"
    )
    _ask(stage, THE_HANDLER, {**READ, **DRAIN}, NEVER)


def notice(stage: Stage) -> None:
    """EC2 gives a notice; the node drains; the handler's account agrees with the cluster's."""
    spot = stage.spot
    with Following(partial(kubernetes.administrator, stage.state), spot.name) as following:
        given = datetime.now(UTC)
        # Whole seconds, as EventBridge writes them.
        since = given.replace(microsecond=0).timestamp()
        event = stage.aws.publish(spot_notice(spot.instance, given=given, state=stage.state))
        stage.view.step(f"notice {event} for {spot.instance}, which is node {spot.name}")
        with stage.view.drain(following, since, since + NOTICE) as drawing:

            def ended() -> dict[str, Any] | None:
                drawing.look()
                found = stage.aws.deliveries(event)
                return found[0] if found and found[0]["state"] in ENDED else None

            def back() -> bool:
                drawing.look()
                return following.sees(Story.settled)

            delivery = wait.until(ended, "an end of the drain", timeout=NOTICE + COMING_BACK)
            stage.result = delivery["result"] or {}
            if delivery["state"] != "succeeded":
                why = stage.result.get("errorMessage", delivery)
                raise DemoError(f"The function failed: {why}")
            if stage.result["outcome"] == "drained":
                wait.until(back, "every evicted pod being ready elsewhere", timeout=COMING_BACK)
        stage.view.line(f"   {conclusion(stage.result)}", style="bold green")
        following.sees(partial(checks.drained, stage.result))


def conclusion(result: dict[str, Any]) -> str:
    """The one line that says it all, in the handler's own numbers."""
    pods = result["pods"]
    return (
        f"node {result['node']} {result['outcome']} in "
        f"{result.get('seconds_to_drained', result['seconds']):.1f} s of {NOTICE:.0f} s: "
        f"{pods['evicted']} evicted, {pods['forced']} forced, {pods['left']} left"
    )


def log(stage: Stage) -> None:
    """CAST AI's own account of it all, and that no text anywhere has the API key."""
    calls = stage.received()["calls"]
    for call in calls:
        if call["method"] != "GET":
            seconds = call["time"] - calls[0]["time"]
            # A role is new to parts of AWS for a moment: CAST AI refuses it, and is asked again.
            again = " (IAM is not ready; asked again)" if call["status"] == NOT_YET else ""
            stage.view.step(f"{seconds:6.1f} s  {call['status']}  {call['what']}{again}")
    events = [(event["event_type"], event["provider_id"]) for event in _at_castai(stage)["events"]]
    if events != [("interrupted", stage.spot.provider_id)]:
        raise DemoError(f"CAST AI knows of these interruptions: {events}")
    texts = checks.secret_unseen(stage.api_key(), stage.texts())
    stage.view.step(f"the API key is in none of {texts} logs, templates, outputs and files")


def offboard(stage: Stage) -> None:
    """All stacks are destroyed; account and cluster are compared with what they were before."""
    with stage.view.doing("cdk destroy --all"):
        stage.cdk.destroy()
    checks.disconnected(_at_castai(stage))
    stage.view.step("CAST AI: disconnected; it has neither role nor principal any more")
    checks.same(stage.before, stage.inventory())
    checks.secret_unseen(stage.api_key(), stage.texts())
    stage.view.step("account and cluster are as before")
    there = sorted(stage.before)
    account = [thing for thing in there if thing[0] in inventory.ACCOUNT]
    none = [kind for kind in inventory.ACCOUNT if kind not in dict(account)]
    stage.view.step(f"   account: {inventory.told(account)}, no {', no '.join(none)}")
    cluster = [thing for thing in there if thing[0] in inventory.CLUSTER]
    stage.view.step(f"   cluster: {inventory.told(cluster)}")


def _deploy(stage: Stage, stack: str, note: str = "") -> list[Thing]:
    """`cdk deploy`; what it made."""
    before = stage.inventory()
    with stage.view.doing(f"cdk deploy {stack}{note}"):
        stage.cdk.deploy(stack)
    return sorted(stage.inventory() - before)


def _ask(stage: Stage, who: Somebody, may: dict[str, Right], may_not: dict[str, Right]) -> None:
    """Let Kubernetes say what someone may do."""
    answers = kubernetes.rights(stage.state, who, {**may, **may_not})
    checks.rights(who.title, answers, allowed=may)
    stage.view.step(f"Kubernetes says that {who.title} may {', '.join(may)}")
    stage.view.step(f"   and may not {', '.join(may_not)}")


def _at_castai(stage: Stage) -> dict[str, Any]:
    """The cluster as CAST AI sees it."""
    (cluster,) = stage.received()["clusters"]
    return dict(cluster)


def _purpose(thing: Thing) -> str:
    """What something that the onboarding made is for; empty for what makes it."""
    kind, name = thing
    return next(
        (
            why
            for of, start, why in MADE_FOR_CASTAI
            if kind == of and _short(name).startswith(start)
        ),
        "",
    )


def _short(arn: str) -> str:
    """The name at the end of a role's ARN; any other name as it is."""
    return arn.rpartition(":role/")[2]


def _trusts_castai_only(stage: Stage, role: str, cluster: dict[str, Any]) -> None:
    document: Any = stage.aws.iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    (statement,) = document["Statement"]
    external = statement["Condition"]["StringEquals"]["sts:ExternalId"]
    if (statement["Principal"], external) != ({"AWS": cluster["principal"]}, cluster["id"]):
        raise DemoError(f"role {role} trusts others than CAST AI's user: {statement}")
    stage.view.step(f"only {cluster['principal']} can use it")


def _is_unknown_to_kubernetes(stage: Stage, role: str) -> None:
    entries = stage.aws.eks.list_access_entries(clusterName=stage.state.cluster)["accessEntries"]
    maps = stage.cluster.list(
        ConfigMap, namespace="kube-system", fields={"metadata.name": "aws-auth"}
    )
    if role in entries or any(role in str(each.data) for each in maps):
        raise DemoError(f"role {role} is known to the cluster")
    stage.view.step("and no access entry lets it in: to the Kubernetes API it is nobody")
