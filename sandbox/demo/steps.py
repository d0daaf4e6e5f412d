"""The steps of the demo's chapters: each runs, prints what it did and checks it."""

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
from sandbox.demo.session import DemoSession
from sandbox.demo.timeline import Timeline
from sandbox.demo.watcher import Watcher
from sandbox.kubernetes import Permission, Subject
from sandbox.state import API_KEY_SECRET
from savings.figures import BRIEF, money, month

NOTICE = 120.0  # s between a spot notice and the end of the instance
ENDED = ("succeeded", "failed", "expired", "discarded")
NOT_PROPAGATED = 400  # CAST AI's status for credentials that do not work yet
REPLACEMENT = 20.0  # s for replacements to be ready after the drain


THE_AGENT = Subject("the agent", f"system:serviceaccount:{AGENT}:{AGENT}")
THE_HANDLER = Subject("the spot handler", SPOT_HANDLER, SPOT_HANDLER_GROUP)

# Permissions that are checked for the agent and for the spot handler.
READ = {"list pods": Permission("list", "pods"), "list nodes": Permission("list", "nodes")}
DRAIN = {
    "cordon nodes": Permission("patch", "nodes"),
    "evict pods": Permission("create", "pods/eviction"),
    "delete pods": Permission("delete", "pods"),
}
NEVER = {
    "delete nodes": Permission("delete", "nodes"),
    "create pods": Permission("create", "pods"),
    "read secrets": Permission("get", "secrets"),
    "change roles": Permission("update", "clusterroles", "rbac.authorization.k8s.io"),
}

# What the onboarding creates under names that CAST AI expects, and its purpose.
MADE_FOR_CASTAI = (
    ("IAM role", "cast-eks-", "CAST AI assumes this role, in this account only"),
    ("IAM policy", "CastEKSPolicy", "permissions of that role: run instances for the cluster"),
    ("IAM role", "cast-", "role of the nodes that CAST AI adds"),
    ("instance profile", "cast-", "assigns the node role to EC2 instances"),
    ("security group", "cast-", "network rules of those nodes"),
    ("access entry", "cast-", "allows only those nodes to join the cluster"),
)

PURPOSES = [why for _kind, _start, why in MADE_FOR_CASTAI]


def account(session: DemoSession) -> None:
    """Start the sandbox and prepare it for deployments: an account before onboarding."""
    state = session.state
    nodes, pods = kubernetes.count(session.cluster)
    session.view.step("one CDK app with a stack for each of the next three chapters; its settings:")
    session.view.table(session.settings.items())
    with session.view.doing("cdk synth"):
        session.cdk.synth(session.settings)
    with session.view.doing("cdk bootstrap, once for each account"):
        session.cdk.bootstrap()
    session.before = session.inventory()
    session.view.step(f"account {state.account}, region {state.region}, cluster {state.cluster}")
    session.view.step(f"{nodes} nodes with {pods} pods, all ready")


def connect(session: DemoSession) -> None:
    """Deploy the agent. Check its objects, its permissions and its status at CAST AI."""
    made = _deploy(session, AGENT)
    ours = [(kind, name) for kind, name in made if AGENT in name and kind in inventory.CLUSTER]
    session.view.step("in the cluster:")
    session.view.table(ours)
    rules = session.cluster.get(ClusterRole, AGENT).rules or []
    verbs = sorted({verb for rule in rules for verb in rule.verbs})
    if verbs != ["get", "list", "watch"]:
        raise DemoError(f"the agent's ClusterRole is not read-only: {', '.join(verbs)}")
    _check_permissions(session, THE_AGENT, READ, {**DRAIN, **NEVER})
    cluster = _at_castai(session)
    if cluster["agent_status"] != "online":
        raise DemoError(f"The agent's status at CAST AI is {cluster['agent_status']}")
    session.view.step(f"CAST AI shows the agent of cluster {cluster['name']}: online")


def savings(session: DemoSession) -> None:
    """Run the command that the agent stack names. Check that its steps add up and it only reads."""
    cluster, page = session.state.cluster, session.folder.parent / "savings.html"
    before = session.inventory()
    command = ["castai-eks", "savings", cluster, "--api-key-secret", API_KEY_SECRET]
    with session.view.doing(" ".join(command)):
        found = session.estimate(cluster, page)
    now, steps = found["now"]["cost"], found["steps"]
    session.view.table(
        [
            ("now", _monthly(now), ""),
            *(
                (BRIEF[step["name"]], _monthly(step["cost"]),
                 f"no packing costs less than {_monthly(step['lowerBound'])}")
                for step in steps
            ),
        ]
    )  # fmt: skip
    for verdict in found["verdicts"]:
        if verdict["reasons"]:
            name = f"{verdict['namespace']}/{verdict['owner']}"
            session.view.step(f"does not tolerate spot: {name}, {verdict['reasons'][0]}")
    for own in found["castai"][-1:]:
        prices = f"{_monthly(own['cost'])} now, {_monthly(own['costAfter'])} with {own['name']}"
        session.view.step(f"CAST AI's own estimate, here figures of the sandbox: {prices}")
    checks.adds_up(now, [step["saved"] for step in steps], steps[-1]["cost"])
    if session.inventory() != before:
        raise DemoError("castai-eks savings changed the account or the cluster")
    session.view.step("nothing was changed; the same as a page with charts, and in your terminal:")
    session.view.step(f"   {page}")
    session.view.step(f"   castai-eks savings {cluster}")


def onboard(session: DemoSession) -> None:
    """Deploy onboarding and spot handler. Check what was created and the role at CAST AI."""
    made = _deploy(session, "castai-onboarding", f" and {SPOT_HANDLER}, which it needs")
    explained = {thing: why for thing in made if (why := _purpose(thing))}
    session.view.step("for CAST AI:")
    session.view.table(
        (kind, _short(name), why)
        for (kind, name), why in sorted(explained.items(), key=lambda each: PURPOSES.index(each[1]))
    )
    rest = [thing for thing in made if thing not in explained and thing[0] in inventory.ACCOUNT]
    session.view.step(f"for the two stacks themselves: {inventory.counted(rest)}")
    cluster = _at_castai(session)
    role = cluster["credentials"].get("role", "")
    session.view.step(f"CAST AI received the role {role}")
    session.view.step(f"and stores its fingerprint {cluster['credentials'].get('fingerprint')}")
    if ("IAM role", _short(role)) not in explained:
        raise DemoError(f"CAST AI has no role of this account: {cluster['credentials']}")
    _check_trust(session, _short(role), cluster)
    _check_no_cluster_access(session, role)


def handler(session: DemoSession) -> None:
    """Check what the onboarding deployed: rule, function, and permissions in the cluster."""
    outputs = session.cdk.outputs()
    rule = f"{SPOT_HANDLER}-SpotInterruption"
    targets = session.aws.events.list_targets_by_rule(Rule=rule)["Targets"]
    if [target["Arn"].rpartition(":")[2] for target in targets] != [SPOT_HANDLER]:
        raise DemoError(f"rule {rule} does not call {SPOT_HANDLER}: {targets}")
    session.view.step(f"rule {rule} → function {outputs['FunctionName']}")
    entry = session.aws.eks.describe_access_entry(
        clusterName=session.state.cluster, principalArn=outputs["RoleArn"]
    )["accessEntry"]
    if entry["kubernetesGroups"] != [SPOT_HANDLER_GROUP]:
        raise DemoError(f"the access entry has the groups {entry['kubernetesGroups']}")
    session.view.step(
        f"role {_short(outputs['RoleArn'])} is in the cluster's group {SPOT_HANDLER_GROUP}"
    )
    _check_permissions(session, THE_HANDLER, {**READ, **DRAIN}, NEVER)


def notice(session: DemoSession) -> None:
    """Publish a notice. Compare the handler's result of the drain with the cluster's timeline."""
    spot = session.spot
    with Watcher(partial(kubernetes.administrator, session.state), spot.name) as watcher:
        given = datetime.now(UTC)
        # Whole seconds, as EventBridge writes them.
        since = given.replace(microsecond=0).timestamp()
        event = session.aws.publish(spot_notice(spot.instance, given=given, state=session.state))
        session.view.step(f"notice {event} for {spot.instance}, node {spot.name}")
        with session.view.drain(watcher, since, since + NOTICE) as drawing:

            def ended() -> dict[str, Any] | None:
                drawing.update()
                found = session.aws.deliveries(event)
                return found[0] if found and found[0]["state"] in ENDED else None

            def replaced() -> bool:
                drawing.update()
                return watcher.read(Timeline.settled)

            delivery = wait.until(ended, "the end of the drain", timeout=NOTICE + REPLACEMENT)
            session.result = delivery["result"] or {}
            if delivery["state"] != "succeeded":
                why = session.result.get("errorMessage", delivery)
                raise DemoError(f"The function failed: {why}")
            if session.result["outcome"] == "drained":
                wait.until(replaced, "every replacement to be ready", timeout=REPLACEMENT)
        session.view.line(f"   {conclusion(session.result)}", style="bold green")
        watcher.read(partial(checks.drained, session.result))


def conclusion(result: dict[str, Any]) -> str:
    """Return the last line of the drain, from the handler's result."""
    pods = result["pods"]
    return (
        f"node {result['node']} {result['outcome']} in "
        f"{result.get('seconds_to_drained', result['seconds']):.1f} s of {NOTICE:.0f} s: "
        f"{pods['evicted']} evicted, {pods['forced']} forced, {pods['left']} left"
    )


def log(session: DemoSession) -> None:
    """Show the calls that CAST AI received. Check that no text contains the API key."""
    calls = session.received()["calls"]
    for call in calls:
        if call["method"] != "GET":
            seconds = call["time"] - calls[0]["time"]
            # A new role takes some time to propagate: CAST AI refuses it, and the call is retried.
            retried = call["status"] == NOT_PROPAGATED
            note = " (the role has not propagated: retried)" if retried else ""
            session.view.step(f"{seconds:6.1f} s  {call['status']}  {call['what']}{note}")
    events = [
        (event["event_type"], event["provider_id"]) for event in _at_castai(session)["events"]
    ]
    if events != [("interrupted", session.spot.provider_id)]:
        raise DemoError(f"CAST AI received these interruptions: {events}")
    texts = checks.secret_absent(session.api_key(), session.texts())
    session.view.step(f"the API key is in none of {texts} logs, templates, outputs and files")


def offboard(session: DemoSession) -> None:
    """Destroy all stacks. Compare account and cluster with the inventory from before."""
    with session.view.doing("cdk destroy --all"):
        session.cdk.destroy()
    checks.disconnected(_at_castai(session))
    session.view.step("CAST AI: disconnected; its role and its principal are removed")
    checks.same(session.before, session.inventory())
    checks.secret_absent(session.api_key(), session.texts())
    session.view.step("account and cluster are as before")
    there = sorted(session.before)
    account = [thing for thing in there if thing[0] in inventory.ACCOUNT]
    none = [kind for kind in inventory.ACCOUNT if kind not in dict(account)]
    session.view.step(f"   account: {inventory.counted(account)}, no {', no '.join(none)}")
    cluster = [thing for thing in there if thing[0] in inventory.CLUSTER]
    session.view.step(f"   cluster: {inventory.counted(cluster)}")


def _deploy(session: DemoSession, stack: str, note: str = "") -> list[Thing]:
    """Run `cdk deploy`. Returns what it created."""
    before = session.inventory()
    with session.view.doing(f"cdk deploy {stack}{note}"):
        session.cdk.deploy(stack)
    return sorted(session.inventory() - before)


def _check_permissions(
    session: DemoSession,
    subject: Subject,
    may: dict[str, Permission],
    may_not: dict[str, Permission],
) -> None:
    """Check that a subject has the permissions of `may` and none of `may_not`."""
    answers = kubernetes.rights(session.state, subject, {**may, **may_not})
    checks.rights(subject.title, answers, allowed=may)
    session.view.step(f"in Kubernetes {subject.title} may {', '.join(may)}")
    session.view.step(f"   and may not {', '.join(may_not)}")


def _at_castai(session: DemoSession) -> dict[str, Any]:
    """Return the cluster at CAST AI."""
    (cluster,) = session.received()["clusters"]
    return dict(cluster)


def _purpose(thing: Thing) -> str:
    """Return the purpose of what the onboarding created for CAST AI; empty for the rest."""
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
    """Return the name at the end of a role's ARN, and any other name unchanged."""
    return arn.rpartition(":role/")[2]


def _check_trust(session: DemoSession, role: str, cluster: dict[str, Any]) -> None:
    document: Any = session.aws.iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    (statement,) = document["Statement"]
    external = statement["Condition"]["StringEquals"]["sts:ExternalId"]
    if (statement["Principal"], external) != ({"AWS": cluster["principal"]}, cluster["id"]):
        raise DemoError(f"role {role} must trust only CAST AI's user: {statement}")
    session.view.step(f"only {cluster['principal']} can assume it")


def _check_no_cluster_access(session: DemoSession, role: str) -> None:
    entries = session.aws.eks.list_access_entries(clusterName=session.state.cluster)[
        "accessEntries"
    ]
    maps = session.cluster.list(
        ConfigMap, namespace="kube-system", fields={"metadata.name": "aws-auth"}
    )
    if role in entries or any(role in str(each.data) for each in maps):
        raise DemoError(f"role {role} has access to the cluster")
    session.view.step(
        "it has no access to the Kubernetes API: neither access entry nor aws-auth has it"
    )


def _monthly(hourly: float) -> str:
    return f"{money(month(hourly))} USD a month"
