"""What has to hold on every day: the promises of docs/reliability.md, checked on the world.

The judge reads the cluster's own history and the requests that the API server got. It has the rules
of a drain in its own words: it uses none of the handler's code. Times are those of the event loop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from kubesim.resources import PODS
from kubesim.virtual import EPOCH
from simulation.drain import aws, castai, rules
from simulation.drain.events import KINDS
from simulation.drain.function import Function, Invocation, Sent
from simulation.drain.rules import (
    DRAIN_KEY,
    NOTICE,
    Window,
    finished,
    has_to_go,
    is_system,
    own_grace,
    stops_at,
)
from simulation.drain.world import Moment, World

Obj = dict[str, Any]

SLACK = 5.0  # s: the longest wait between two tries, and a request
CLEAR = 8.0  # s without a fault that a run needs to do its work
UNAUTHORIZED = 15.0  # s of 401 that may pass
STUCK = 30.0  # s past its grace for which a terminating pod is waited for
REPORT = 10.5  # s after the drain that a run may take for CAST AI
WORDS = 250  # characters of a server's text in the result
BURST, BURST_SECONDS = 16, 5.0  # requests for one pod, or of one other kind, in so many seconds
READS = 40  # lists in the same time
CHURN = 40  # pods that started on the node during the run and are evicted in the same time
OUR_LABELS = frozenset({DRAIN_KEY, "node.kubernetes.io/exclude-from-external-load-balancers"})
OUR_ANNOTATION = "castai-eks/marks"
_EPSILON = 0.02
_JUST_NOW = 0.1  # s: the end of the last pod that was waited for ends the run
LATE = 0.5  # s in which a watch shows what came
_PARTS = frozenset(
    {"metadata", "spec", "resourceVersion", "labels", "annotations", "taints", "unschedulable"}
)


class Judge:
    """All that is known of a day that is over."""

    def __init__(self, world: World, function: Function) -> None:
        self.world = world
        self.day = world.day
        self.runs = function.runs
        self.output = function.output.getvalue()
        self._frozen = function.frozen

    def faults(self) -> list[str]:
        """Each broken promise."""
        found = [*self._secrets(), *self._long_lines()]
        if not self.day.kills:  # a container that is killed leaves what it did
            found += [f"clean: {text}" for text in self.world.strays]
        for run in self.runs:
            for promise, check in PROMISES.items():
                found += [
                    f"{promise}: invocation {run.number}: {fault}" for fault in check(self, run)
                ]
        return found

    # The run

    def window(self, run: Invocation) -> Window:
        """From the event and the settings alone."""
        # A notice from the future of the function's clock was given now.
        given = min(_whole_seconds(run), run.started + self.day.skew) - self.day.skew
        return rules.window(KINDS[run.delivery.kind], started=run.started, given=given)

    def drains(self, run: Invocation) -> bool:
        """Whether pods have to go."""
        return rules.drains(self.day, run.delivery)

    def said(self, run: Invocation) -> float:
        """When the drain was over: its last Event is sent then."""
        events = [sent.at for sent in run.sent if sent.path.endswith("/events")]
        ended = run.ended or math.inf
        return min(events[-1], ended) if len(events) > 1 else ended

    def failed(self, run: Invocation) -> list[Sent]:
        """Requests without their effect, or with a lost or a late answer."""
        return [sent for sent in run.sent if _failed(sent)]

    def calm(self, run: Invocation) -> bool:
        """Whether neither the API server nor AWS failed in this run."""
        return not self.failed(run) and not self.day.aws_faults

    # Pods

    def pods(self, run: Invocation, moment: float) -> list[Obj]:
        """The pods that have to go, on the run's node at a moment."""
        return [pod for pod in self.world.pods_at(run.delivery.node, moment) if has_to_go(pod)]

    def pods_within(self, run: Invocation, since: float, until: float) -> Iterator[Obj]:
        """The states of the pods that have to go, on the run's node at each moment of a time."""
        changes = [each.at for each in self.world.moments if since <= each.at <= until]
        for moment in (since, *changes, until):
            yield from self.pods(run, moment)

    def history(self, uid: str) -> Iterator[tuple[float, Obj | None]]:
        """The states of a pod; None: removed."""
        for moment in self._changes(uid):
            change = moment.change
            yield moment.at, None if change.kind == "DELETED" else change.new

    def _changes(self, uid: str) -> Iterator[Moment]:
        """The changes of a pod."""
        for moment in self.world.moments:
            change = moment.change
            if change.resource is PODS and change.new["metadata"]["uid"] == uid:
                yield moment

    def pod_at(self, uid: str, moment: float) -> Obj | None:
        """The last state of a pod up to a moment, also of one that was removed."""
        found = self._first_state(uid)
        for at, state in self.history(uid):
            if at > moment:
                break
            found = state or found
        return found

    def _first_state(self, uid: str) -> Obj | None:
        for moment in self._changes(uid):
            return moment.change.old or moment.change.new
        return next(
            (p for p in self.world.cluster.store.objects(PODS) if p["metadata"]["uid"] == uid),
            None,
        )

    def _began(self, uid: str) -> float:
        """When the pod was created; before the day: 0."""
        first = next(self._changes(uid), None)
        return first.at if first is not None and first.change.old is None else 0.0

    def gone_at(self, uid: str) -> float:
        """When the pod was removed, or had finished; infinite: never."""
        for at, state in self.history(uid):
            if state is None or finished(state):
                return at
        return math.inf

    def terminating_at(self, uid: str) -> float:
        """When the pod began to terminate, or was gone; infinite: never."""
        for at, state in self.history(uid):
            if state is None or finished(state) or "deletionTimestamp" in state["metadata"]:
                return at
        return math.inf

    # Promise 1

    def truth(self, run: Invocation) -> Iterator[str]:
        """`drained` exactly if no pod that has to go was there when it was said."""
        if run.result is None:
            return
        outcome, said = run.result["outcome"], self.said(run)
        if outcome == "drained":
            yield from self._empty(run)
        if outcome == "partial":
            yield from self._left(run, said)
        if outcome in ("drained", "partial"):
            yield from self._counts(run, said)

    def _empty(self, run: Invocation) -> Iterator[str]:
        lists = _lists(run)
        if not lists:
            yield "drained, and no list showed the pods"
            return
        if any(fault.kind == "old list" for fault in self.day.faults):
            return  # the server itself said so
        since, said = lists[-1].at, self.said(run)
        there = self.pods(run, said)
        listed = _uids(self.pods(run, since))
        # Only a watch shows what came after the last list.
        seen = self.calm(run) and not self.day.skew
        known = listed | _uids(self.pods(run, said - LATE)) if seen else listed
        if left := [pod for pod in there if pod["metadata"]["uid"] in known]:
            yield f"drained, and the node has {_names(left)}"
        touched = {sent.uid for sent in run.sent}
        if again := [pod for pod in there if pod["metadata"]["uid"] in touched]:
            yield f"drained, and the node has {_names(again)}, which it knew"
        settled = _cordons(run)
        if settled and (late := self._bound_soon(run, settled[0])):
            yield f"drained, and bindings under way put {_names(late)} on the node"

    def _bound_soon(self, run: Invocation, cordon: Sent) -> list[Obj]:
        """Pods whose node was chosen before the cordon, which no run of ours has removed."""
        latest = (cordon.answered or cordon.at) + self.day.late_bindings
        return [
            pod
            for pod in self.pods(run, latest + _EPSILON)
            if self.gone_at(pod["metadata"]["uid"]) > (run.ended or math.inf)
            and not any(
                sent.uid == pod["metadata"]["uid"] for other in self.runs for sent in other.sent
            )
        ]

    def _left(self, run: Invocation, said: float) -> Iterator[str]:
        assert run.result is not None  # noqa: S101 - the caller looked
        left = [each["pod"] for each in run.result["left"]]
        if not left:
            late = said >= self.window(run).deadline - SLACK
            if not late and not any(sent.at >= said - 15 for sent in self.failed(run)):
                yield f"partial without a pod left ({run.result.get('reason')})"
            return
        # Where requests failed, the drain could not see all: it may name what the last list showed.
        since, lists = said - 1, _lists(run)
        if lists and any(sent.at >= since - 50 for sent in self.failed(run)):
            since = min(since, lists[-1].at)
        there = {
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in self.pods_within(run, since, said)
        }
        if wrong := sorted(set(left) - there):
            yield f"left: {', '.join(wrong)}, and not on the node"

    def _counts(self, run: Invocation, said: float) -> Iterator[str]:
        assert run.result is not None  # noqa: S101 - the caller looked
        pods = run.result["pods"]
        lists = _lists(run)
        if not lists:
            return
        there = _uids(self.pods_within(run, lists[0].at, said))
        counted = pods["evicted"] + pods["forced"] + pods["gone"] + pods["left"]
        if counted > len(there):
            yield f"{counted} pods counted, {len(there)} were there"
        if self.calm(run) and counted < len(there):
            yield f"{counted} pods counted, {len(there)} were there and nothing failed"
        accepted = {sent.uid for sent in run.sent if sent.uid and _accepted(sent)}
        if counted < len(accepted):
            yield f"{counted} pods counted, {len(accepted)} were evicted or deleted"
        for what, method in (("evicted", "POST"), ("forced", "DELETE")):
            uids = {
                sent.uid
                for sent in run.sent
                if sent.uid and sent.method == method and (_accepted(sent) or _in_doubt(sent))
            }
            if pods[what] > len(uids):
                yield f"{pods[what]} pods {what}, and {len(uids)} such requests were accepted"

    # Promise 2

    def budgets(self, run: Invocation) -> Iterator[str]:
        """Nobody is deleted past a budget that was not asked, or too early."""
        window = self.window(run)
        for sent in run.sent:
            if sent.method != "DELETE" or not sent.uid:
                continue
            evicted = any(
                other.uid == sent.uid and other.method == "POST" and _accepted(other)
                for each in self.runs
                for other in (run.sent[: run.sent.index(sent)] if each is run else each.sent)
                if other.at <= sent.at
            )
            if evicted or self.terminating_at(sent.uid) < sent.at:
                continue
            pod = self.pod_at(sent.uid, sent.at)
            if pod is None:
                yield f"DELETE of a pod that was never there: {sent.path}"
                continue
            if self.day.settings.on_deadline == "leave":
                yield f"DELETE of {sent.path}, and the setting is to leave pods"
                continue
            refusals = [
                other.at
                for other in run.sent
                if other.uid == sent.uid and other.at <= sent.at and _budget_refused(other)
            ]
            due = rules.force_from(pod, window, refused=refusals[0] if refusals else math.inf)
            if sent.at < due - 1:
                yield (
                    f"DELETE of {sent.path} at {sent.at:.1f}, and nothing allowed it before "
                    f"{due:.1f} (budget refused: {bool(refusals)})"
                )

    def graces(self, run: Invocation) -> Iterator[str]:
        """Nobody gets less grace than would have fit, and never 0."""
        window = self.window(run)
        for sent in run.sent:
            if not sent.uid:
                continue
            pod = self.pod_at(sent.uid, sent.at)
            if pod is None:
                continue
            fits = min(own_grace(pod), math.floor(window.end - sent.at - _EPSILON))
            if sent.grace < max(1, fits):
                yield f"{sent.method} {sent.path}: {sent.grace} s of grace, {fits} s would have fit"

    # Promise 3

    def ours(self, run: Invocation) -> Iterator[str]:
        """Nothing but the node and its pods is written."""
        kind = KINDS[run.delivery.kind]
        may_write = (kind.drains or kind.uncordons) and self.day.settings.mode != "dry-run"
        node = self.world.node_name(run.delivery.node)
        for sent in run.sent:
            if sent.method == "GET":
                continue
            what = f"{sent.method} {sent.path}"
            if not may_write:
                yield f"{what} for an event that allows no write ({run.delivery.kind})"
            elif sent.uid:
                yield from self._pod_write(run, sent, node)
            elif sent.method == "PATCH":
                if sent.path != f"/api/v1/nodes/{node}":
                    yield f"{what}: the node is {node}"
            elif sent.path != "/api/v1/namespaces/default/events":
                yield f"{what}: no drain needs it"

    def _pod_write(self, run: Invocation, sent: Sent, node: str) -> Iterator[str]:
        what = f"{sent.method} {sent.path}"
        if not self.drains(run):
            yield f"{what} and the node is not to be drained"
        pod = self.pod_at(sent.uid, sent.at)
        if pod is None or pod["spec"].get("nodeName") != node:
            yield f"{what}: the pod is not on {node}"
        elif not has_to_go({**pod, "status": {}}):
            yield f"{what}: the pod stays by its rules"

    def marks(self, run: Invocation) -> Iterator[str]:
        """No mark of others on a node is lost."""
        for sent in run.sent:
            if sent.method == "PATCH":
                for text in self._foreign_parts(sent):
                    yield f"a patch of {sent.path} {text}"

    def _foreign_parts(self, sent: Sent) -> Iterator[str]:
        """What a merge patch writes beside our marks on the version of the node that it names."""
        metadata, spec = sent.body.get("metadata", {}), sent.body.get("spec", {})
        node = self._version(sent.path.rpartition("/")[2], metadata.get("resourceVersion"))
        if node is None:
            yield "names no version of the node: it would overwrite what others wrote since"
            return
        if further := {*sent.body, *metadata, *spec} - _PARTS:
            yield f"also writes {sorted(further)}"
        if "taints" in spec and _foreign_taints(spec) != _foreign_taints(node["spec"]):
            yield "changes a taint of others"
        if "unschedulable" in spec and not spec["unschedulable"] and not self._cordoned(node):
            yield "lifts a cordon of others"
        for what, ours in (("labels", OUR_LABELS), ("annotations", {OUR_ANNOTATION})):
            before = node["metadata"].get(what) or {}
            for key in metadata.get(what, {}):
                # Our value may come and go; a value of others stays.
                foreign = what == "labels" and before.get(key) not in (None, "true")
                if key not in ours or (key != DRAIN_KEY and foreign):
                    yield f"changes {what}: {key}"

    def _versions(self, name: str) -> Iterator[tuple[Obj | None, Obj]]:
        """Each change of a node: the version before and after it. The first one may be both."""
        changes = [moment.change for moment in self.world.node_changes(name)]
        first = changes[0].old if changes else self.world.cluster.get("nodes", name)
        if first is not None:
            yield None, first
        yield from ((change.old, change.new) for change in changes)

    def _version(self, name: str, version: str | None) -> Obj | None:
        return next(
            (
                node
                for _, node in self._versions(name)
                if node["metadata"]["resourceVersion"] == version
            ),
            None,
        )

    def _cordoned(self, node: Obj) -> bool:
        """Whether the cordon of this version of a node is ours."""
        cordoned_from = None
        for old, new in self._versions(node["metadata"]["name"]):
            before = old is not None and old["spec"].get("unschedulable")
            if new["spec"].get("unschedulable") and not before:
                cordoned_from = old and old["metadata"]["resourceVersion"]
            if new["metadata"]["resourceVersion"] == node["metadata"]["resourceVersion"]:
                break
        return any(
            sent.method == "PATCH"
            and sent.body["metadata"].get("resourceVersion") == cordoned_from
            and sent.body.get("spec", {}).get("unschedulable")
            and (_accepted(sent) or _in_doubt(sent))
            for each in self.runs
            for sent in each.sent
        )

    # Promise 4

    def off(self, run: Invocation) -> Iterator[str]:
        """Whatever can be off the node by the deadline is off."""
        if not self._could_work(run):
            return
        window, node = self.window(run), run.delivery.node
        if self.world.ends.get(node, math.inf) < window.end:
            return
        # A node that cannot be cordoned is drained all the same.
        failed = [_until(sent) for sent in self.failed(run) if sent.method != "PATCH"]
        last = max(failed, default=run.started)
        by_force = max(last + CLEAR, window.hard_end + SLACK)
        cordoned = bool(_cordons(run))
        first = self.pods(run, run.started)
        # The server's times are compared with the function's own clock.
        latest = window.deadline + max(0.0, self.day.skew) + 1
        known = min(max(run.started, window.hard_end - CLEAR), self.said(run))
        for pod in self.pods(run, known):
            uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
            if pod["metadata"].get("finalizers") or self.gone_at(uid) <= latest:
                continue
            if by_force > window.end - 1 or self._held(pod):
                continue
            if not cordoned and not any(uid == p["metadata"]["uid"] for p in first):
                continue  # its replacement would start there as well
            yield f"{name} could have been off the node by {window.end:.1f}"

    def prompt(self, run: Invocation) -> Iterator[str]:
        """Without a fault every pod that nothing holds back is evicted at once."""
        cordons = _cordons(run)
        if not self._could_work(run) or not self.calm(run) or not cordons:
            return
        cordoned = cordons[0].answered or cordons[0].at
        for pod in self.pods(run, cordoned):
            uid = pod["metadata"]["uid"]
            system = is_system(pod)
            if system or self._held(pod) or self.terminating_at(uid) <= cordoned + 1:
                continue
            yield f"{pod['metadata']['name']} was not evicted within a second of the cordon"

    def cordon(self, run: Invocation) -> Iterator[str]:
        """Without a fault the node is cordoned, also one that registers after the notice."""
        kind, node = KINDS[run.delivery.kind], run.delivery.node
        if not kind.drains or self.day.settings.mode == "dry-run" or not self.calm(run):
            return
        if not self._could_work(run, mode="cordon"):
            return
        name = self.world.node_name(node)
        ended = run.ended or math.inf
        if not any(
            moment.change.new["spec"].get("unschedulable")
            for moment in self.world.node_changes(name)
            if moment.at <= ended
        ):
            yield f"{name} was not cordoned"

    def returned(self, run: Invocation) -> Iterator[str]:
        """The node of an instance that was stopped and runs again has none of our marks."""
        notices = [each for each in self.day.deliveries if KINDS[each.kind].drains]
        mine = {each.kind for each in notices if not each.node}
        others = {"mark", "balancer"} | rules.END_A_NODE
        back = run.delivery is self.world.returning and run.result is not None
        if not back or not self.calm(run) or not mine <= {"stop", "hibernate"}:
            return
        again = any(each.started > run.started for each in self.runs)
        if again or any(act.kind in others for act in self.day.acts):
            return
        node = self.world.cluster.get("nodes", self.world.node_name(0))
        if node is None:
            return
        if node["spec"].get("unschedulable") or _ours(node) != ([], None):
            yield f"{node['metadata']['name']} keeps marks of a notice"

    def _could_work(self, run: Invocation, mode: str = "drain") -> bool:
        """Whether the run had its time, and a node with a living instance."""
        kind, node = KINDS[run.delivery.kind], run.delivery.node
        if run.error.startswith("ClusterUnauthorizedError") and _lasting_401(run):
            return False  # it counts as missing access: Lambda's retry asks again
        if run.error.startswith("AwsRefusedError"):
            return False  # Lambda's retry asks again
        if run.killed or not kind.drains or (mode == "drain" and not self.drains(run)):
            return False
        late = self.day.registers_at and not node
        registered = self.world.start + self.day.registers_at
        if late and registered + CLEAR > self.window(run).deadline:
            return False  # a late notice, or hibernation
        if late and self.day.registers_at > run.started - self.world.start + 20:
            return False
        if self.world.ends.get(node, math.inf) <= run.started + (25 if late else 1):
            return False
        if run.delivery.age + run.started - self.world.start - run.delivery.at >= NOTICE - 1:
            return False  # stale
        return not any(act.kind in rules.END_A_NODE and act.node == node for act in self.day.acts)

    def _held(self, pod: Obj) -> bool:
        """Whether a budget may hold the pod, or a server that is told to leave pods."""
        app = (pod["metadata"].get("labels") or {}).get("app", "")
        budgeted = any(f"app-{budget.app}" == app for budget in self.day.budgets)
        return budgeted and (
            self.day.settings.on_deadline == "leave" or "deletionTimestamp" not in pod["metadata"]
        )

    # Promise 5

    def time(self, run: Invocation) -> Iterator[str]:
        """No run outlives the function's time, or holds its container for CAST AI."""
        if run.ended is None:
            return
        skew = max(0.0, -self.day.skew)  # a clock that is behind sees a later deadline
        latest = self.window(run).deadline + REPORT + skew + self.frozen(run.started, run.ended)
        if run.error == "timed out" and run.ended > latest:
            yield "Lambda ended it"
        if run.killed:
            return
        if run.ended > latest:
            yield f"it ended {run.ended - latest:.0f} s after its deadline"
        if run.result and run.result["outcome"] in ("drained", "partial"):
            said = self.said(run)
            after = run.ended - said - self.frozen(said, run.ended)
            # The last Event may have no answer.
            if after > REPORT + (SLACK if self.failed(run) else 0.0):
                yield f"it ended {after:.0f} s after the drain"
            yield from self._waits(run, said)

    def _waits(self, run: Invocation, said: float) -> Iterator[str]:
        """The run waits no longer than STUCK past a pod's grace."""
        left = self.pods(run, said)
        alone = sum(other.delivery.node == run.delivery.node for other in self.runs) == 1
        if not left or self.day.skew or not alone:
            return
        waited_for = [*left, *self.pods(run, said - _JUST_NOW)]
        ends = max(stops_at(pod) for pod in waited_for)
        if any(_until(sent) > ends for sent in self.failed(run)):
            return  # it could not see that only these are left
        latest = ends + STUCK + SLACK + self.frozen(run.started, said)
        if max(said - latest, 0) > 1 and said > run.started + SLACK:
            yield f"it waited until {said:.0f} for pods whose grace was over {STUCK:.0f} s before"

    def frozen(self, start: float, end: float) -> float:
        """Seconds in which no run could do anything: a call to AWS of another run blocks the loop,
        which they share here only.
        """
        return sum(max(0.0, min(end, b) - max(start, a)) for a, b in self._frozen)

    def storms(self, run: Invocation) -> Iterator[str]:
        """The requests per second are bounded."""
        kinds: dict[str, list[float]] = {}
        for sent in run.sent:
            what = sent.uid or ("the pods" if _is_list(sent) else f"{sent.method} {sent.path}")
            kinds.setdefault(what, []).append(sent.at)
        first = {sent.uid: sent.at for sent in reversed(run.sent) if sent.uid}
        late = sorted(at for uid, at in first.items() if self._began(uid) > run.started)
        for earlier, later in zip(late, late[CHURN:], strict=False):
            if later - earlier < BURST_SECONDS:
                yield f"{CHURN + 1} pods that had just started were evicted in {later - earlier} s"
                break
        # After a 404 only a list shows whether the pod is gone.
        unknown = [_until(sent) for sent in run.sent if sent.status == 404 and sent.uid]
        for what, times in kinds.items():
            for number, last in enumerate(times):
                since = last - BURST_SECONDS
                sent_then = sum(since < at for at in times[: number + 1])
                looks = sum(since - 1 < at <= last for at in unknown)
                if sent_then > (READS + looks if what == "the pods" else BURST):
                    yield f"{sent_then} requests for {what} in {BURST_SECONDS:.0f} s"
                    break

    # Promise 6

    def words(self, run: Invocation) -> Iterator[str]:
        """A server's text does not fill the result and the log."""
        texts = [run.error]
        if run.result:
            texts += [each["reason"] for each in run.result["left"]]
            texts += [run.result.get("reason", ""), run.result.get("castai_reason", "")]
        for text in texts:
            if len(text) > 3 * WORDS:
                yield f"a text of {len(text)} characters"
        if castai.KEY in json.dumps(run.result) + run.error:
            yield "CAST AI's key is in the result"

    def outcome(self, run: Invocation) -> Iterator[str]:
        """An event that is no notice is not taken for one."""
        kind = KINDS[run.delivery.kind]
        outcome = run.result["outcome"] if run.result else ""
        if not kind.drains and not kind.uncordons and outcome not in ("", "ignored", "rejected"):
            yield f"{run.delivery.kind} led to {outcome}"
        if run.crashed or run.error.startswith("PermanentError: Report this as a bug"):
            yield run.error
        says = run.error.partition(":")[0]
        unauthorized = says == "ClusterUnauthorizedError" and not _lasting_401(run)
        if says == "ClusterForbiddenError" or unauthorized:
            yield f"no right is missing, and it says: {run.error}"

    def _secrets(self) -> Iterator[str]:
        secrets = {
            "the secret access key": aws.SECRET_KEY,
            "the session token": aws.SESSION_TOKEN,
            "CAST AI's key": castai.KEY,
            "a token for the cluster": "k8s-aws-v1.",
            "a signature": "X-Amz-Signature",
        }
        for what, secret in secrets.items():
            if secret in self.output:
                yield f"secrets: {what} is in the log"

    def _long_lines(self) -> Iterator[str]:
        """A server's text does not fill the log."""
        for line in self.output.splitlines():
            if (longest := max(map(len, _texts(line)), default=0)) > 3 * WORDS:
                yield f"words: a text of {longest} characters is in the log: {line[:100]}"


PROMISES: dict[str, Callable[[Judge, Invocation], Iterable[str]]] = {
    "truth": Judge.truth,
    "budgets": Judge.budgets,
    "graces": Judge.graces,
    "only ours": Judge.ours,
    "marks": Judge.marks,
    "off by the deadline": Judge.off,
    "prompt": Judge.prompt,
    "cordon": Judge.cordon,
    "returned": Judge.returned,
    "time": Judge.time,
    "storms": Judge.storms,
    "words": Judge.words,
    "outcome": Judge.outcome,
}


# Requests and nodes -----------------------------------------------------------------------------


def _whole_seconds(run: Invocation) -> float:
    """When the notice was given, in the loop's time: events have whole seconds."""
    return datetime.fromisoformat(run.event["time"]).timestamp() - EPOCH


def _lasting_401(run: Invocation) -> bool:
    refused = [sent.at for sent in run.sent if sent.status == 401]
    return bool(refused) and refused[-1] - refused[0] >= UNAUTHORIZED - _EPSILON


def _is_list(sent: Sent) -> bool:
    return sent.method == "GET" and sent.path == "/api/v1/pods" and "watch=1" not in sent.query


def _lists(run: Invocation) -> list[Sent]:
    """The lists of pods that the server answered."""
    return [sent for sent in run.sent if _is_list(sent) and sent.status == 200]


def _cordons(run: Invocation) -> list[Sent]:
    """The patches of the node that the server accepted."""
    return [sent for sent in run.sent if sent.method == "PATCH" and sent.status == 200]


def _failed(sent: Sent) -> bool:
    """Whether the request had no effect for a reason that is no rule, or a lost or late answer."""
    late = sent.answered is None or sent.answered - sent.at > 1
    if sent.status in (0, 401, 403) or sent.status >= 500 or late:
        return True
    if sent.status == 429:
        return not _budget_refused(sent)
    if sent.status == 409:
        return "UID in the precondition" not in sent.answer
    if sent.status == 404:
        return sent.method != "GET"  # the node may not be there yet
    return sent.status == 200 and "watch=1" not in sent.query and not sent.answer.endswith("}")


def _until(sent: Sent) -> float:
    return sent.at + 10 if sent.answered is None else sent.answered


def _accepted(sent: Sent) -> bool:
    return 200 <= sent.status < 300


def _in_doubt(sent: Sent) -> bool:
    return sent.status in (0, 500, 502, 504)


def _budget_refused(sent: Sent) -> bool:
    return rules.budget_refused(sent.status, sent.answer, sent.retry_after)


def _uids(pods: Iterable[Obj]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def _names(pods: Iterable[Obj]) -> str:
    return ", ".join(sorted(pod["metadata"]["name"] for pod in pods))


def _ours(node: Obj) -> object:
    """Our marks on a node."""
    taints = [t for t in node["spec"].get("taints") or () if t["key"] == DRAIN_KEY]
    return taints, (node["metadata"].get("labels") or {}).get(DRAIN_KEY)


def _foreign_taints(spec: Obj) -> list[Obj]:
    return [taint for taint in spec.get("taints") or () if taint["key"] != DRAIN_KEY]


def _texts(line: str) -> Iterator[str]:
    """Each text in a line of the log, which is JSON as a rule."""
    try:
        values = [json.loads(line)]
    except ValueError:
        values = [line]
    while values:
        value = values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
