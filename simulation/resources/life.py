"""One day of a custom resource in a world: its steps, its end, and the checks of both stories."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sandbox.castai_api.state import Cluster as KnownCluster
from simulation.engine import Verdict
from simulation.resources import edits, facts
from simulation.resources.calls import Fault
from simulation.resources.days import Day, Deploy, Edit, Kind, Remove, Step
from simulation.resources.eks import ACCOUNT
from simulation.resources.facts import Facts
from simulation.resources.requests import Answer, Event, Resource, event
from simulation.resources.words import says_what_to_do
from simulation.resources.world import PLACES, SECRETS, Place, World, opened

Promise = Literal[
    "state",  # the account holds exactly what the last successful request asked for
    "rollback",  # after a failed request and CloudFormation's rollback all is as before
    "again",  # a request that is delivered a second time changes nothing and answers the same
    "others",  # what others made is as they left it
    "removal",  # after the last Delete nothing of ours is left
    "retry",  # a failed request succeeds when it is sent again without faults and obstacles,
    # unless a first Create with these properties is refused for the same reason
    "nodes",  # a removal that is refused because nodes run changes nothing
    "secrets",  # no secret is in a log line, an answer or an error
    "time",  # no run is longer than the function's time
    "words",  # every error begins with what to do
]


def run(kind: Kind, day: Day) -> Verdict:
    """Live a day."""
    if not day.resources or len(day.modes) != len(PLACES):
        return Verdict()  # a day that was made too small
    with opened(PLACES, day.modes, controllers=kind.controllers) as world:
        life = _Life(kind, world, day)
        life.live()
    life.compare()
    return life.verdict


# A day --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Deployed:
    """What is needed to know what a resource should have made."""

    physical_id: str
    """The kind's pattern."""
    place: Place
    mode: str
    """The cluster's authentication mode. Empty: the region has no cluster of this name."""
    stack: str
    logical_id: str
    properties: str
    """JSON."""


@dataclass
class _Comparison:
    """Facts to compare with what a first Create makes, when the world is closed."""

    where: str
    found: Facts
    deployed: tuple[tuple[_Deployed, str], ...]
    """Each with the id of its cluster at CAST AI."""
    background: Facts
    orphans: frozenset[str]
    """See _Life."""
    unsure: frozenset[Place]


@dataclass(frozen=True)
class _Refusal:
    """A request without faults that failed, to compare with a first Create."""

    sentence: str
    reason: str
    refused: _Deployed
    cluster_id: str


@dataclass(frozen=True)
class _RemovedEntry:
    """An access entry of ours that a Create or an Update removed.

    It is compared with what a first Create makes.
    """

    entry: str
    wanted: _Deployed
    cluster_id: str


@dataclass
class _Life:
    """One day in one world."""

    kind: Kind
    world: World
    day: Day
    verdict: Verdict = field(default_factory=Verdict)
    resources: list[Resource] = field(default_factory=list)
    comparisons: list[_Comparison] = field(default_factory=list)
    refusals: list[_Refusal] = field(default_factory=list)
    removed_entries: list[_RemovedEntry] = field(default_factory=list)
    made_again: set[str] = field(default_factory=set)
    """Access entries of ours that a request of this step removed: what others wrote into one goes
    with it, also where a later request makes the entry again."""
    drifted: set[Place] = field(default_factory=set)
    """Clusters where others changed what is ours."""
    cleared: bool = False
    orphans: frozenset[str] = frozenset()
    """IAM users with an access key that a killed run made, or that an error named as left.

    No later run can tell such a key from one of others: it stays until a removal or a rotation.
    """
    background: Facts = field(default_factory=dict)

    def live(self) -> None:
        """All steps, and the end."""
        edits.background(self.world)
        self.background = facts.of(self.world)
        for number, at in enumerate(self.day.resources):
            region = PLACES[at].region
            name = "castai" if number == 0 else f"castai-{number}"
            stack = f"arn:aws:cloudformation:{region}:{ACCOUNT}:stack/{name}/1b2c"
            self.resources.append(Resource(stack, "Prod"))
        for step in self.day.steps:
            marks = facts.marks(facts.of(self.world))
            self._step(step)
            if not isinstance(step, Edit):
                self._check_marks(marks)
        self._end()

    def compare(self) -> None:
        """Compare the states and refusals with what first Creates make and get."""
        for refusal in self.refusals:
            made = _made_by_a_create(self.kind, refusal.refused, refusal.cluster_id)
            if made.get(REFUSED) != refusal.reason:
                self._break("retry", refusal.sentence)
        for removed in self.removed_entries:
            made = _made_by_a_create(self.kind, removed.wanted, removed.cluster_id)
            place = removed.wanted.place
            is_here = removed.entry.startswith(f"{place.region} {place.name} ")
            if not is_here or removed.entry in made or REFUSED in made:
                self._break("others", f"{removed.entry} was removed by a request that keeps it")
        for each in self.comparisons:
            wanted = dict(facts.ours(each.background))
            for one, cluster_id in each.deployed:
                wanted |= _made_by_a_create(self.kind, one, cluster_id)
            found = facts.ours(each.found)
            parts = facts.without_used_namespaces(each.found, wanted, found)
            for line in _sure(facts.difference(*parts), each.unsure):
                user = re.match(r"left: user (\S+): access key \d \(not in a secret\)", line)
                is_orphan = user is not None and user[1] in each.orphans
                if not is_orphan and not _TAG_OF_THE_SHARED.search(line):
                    self._break("state", f"{each.where}: {line}")

    def _break(self, promise: Promise, sentence: str) -> None:
        self.verdict.faults.append(f"{promise}: {sentence}")
        self.verdict.timeline.append(f"  BROKEN {promise}: {sentence}")

    def _say(self, line: str) -> None:
        self.verdict.timeline.append(line)

    def _step(self, step: Step) -> None:
        if isinstance(step, Edit):
            place = PLACES[step.place]
            before = facts.of(self.world)
            self.kind.edits[step.edit].make(self.world, place)
            if facts.of(self.world) != before:
                self._say(f"somebody {step.edit} ({place.name}, {place.region})")
                self.verdict.seen[step.edit] += 1
                self.drifted |= {place} if self.kind.edits[step.edit].drifts else set()
            return
        resource = self.resources[step.resource % len(self.resources)]
        if isinstance(step, Remove):
            if resource.physical_id:
                self._remove(resource, step.faults, twice=step.twice)
        elif resource.physical_id:
            self._update(resource, step)
        else:
            self._create(resource, step)

    # Requests -------------------------------------------------------------------------------------

    def _properties(self, resource: Resource, changes: tuple[str, ...]) -> dict[str, Any]:
        place = PLACES[self.day.resources[self.resources.index(resource)]]
        properties = resource.properties or self.kind.base(place)
        for change in changes:
            properties = {**properties, **self.kind.changes[change]}
        return {name: value for name, value in properties.items() if value is not None}

    def _send(
        self, request: Event, resource: Resource, faults: tuple[Fault, ...] = (), note: str = ""
    ) -> Answer:
        """Deliver a request once, and check what holds for every request."""
        function = self.kind.function(self.world, resource)
        before = facts.of(self.world)
        answer = function.invoke(request, faults, self.day.log_level)
        if self.kind.settles:
            self.world.sleep(self.kind.settles)
        kind = request["RequestType"]
        end = "killed" if answer.killed else "failed" if answer.data is None else "done"
        self._say(
            f"{kind} {resource.owner}{note} {_shown(request)} -> {end}: {answer.seconds:.0f}s"
        )
        for line in function.gate.log[:6]:
            self._say(f"  {line}")
        if answer.reason:
            self._say(f"  {answer.reason.splitlines()[0]}")
        self.verdict.seen[f"{kind} {end}"] += 1
        self.verdict.seen += function.gate.met
        self._check_answer(answer, kind)
        self._note_orphans(request, answer)
        self._note_removed_entries(request, resource, before)
        return answer

    def _note_removed_entries(self, request: Event, resource: Resource, before: Facts) -> None:
        now = facts.of(self.world)
        wanted = self._deployed(resource, request["ResourceProperties"])
        for entry in facts.entries_of(before, resource.owner) - now.keys():
            self.made_again.add(entry)
            if request["RequestType"] != "Delete":
                one = _RemovedEntry(entry, wanted, self._cluster_id(wanted))
                self.removed_entries.append(one)

    def _note_orphans(self, request: Event, answer: Answer) -> None:
        left = answer.reason.partition("remove by hand")[2]
        users = set(re.findall(r"new access key of IAM user (\S+)", left))
        new, old = request["ResourceProperties"], request.get("OldResourceProperties")
        user = f"cast-eks-{new['ClusterName']}"
        users |= {user} if answer.killed else set()
        is_rotation = old is not None and old.get("RotationId") != new.get("RotationId")
        gone = {user} if is_rotation and answer.data is not None else set()
        names = facts.of(self.world)
        self.orphans = frozenset(
            each
            for each in (self.orphans | users) - gone
            if any(
                name.startswith(f"user {each}: access key") and "(not in a secret)" in name
                for name in names
            )
        )

    def _check_answer(self, answer: Answer, kind: str) -> None:
        texts = (answer.reason, answer.log, json.dumps(answer.data or {}))
        for secret in (*SECRETS, *self.world.secrets):
            if any(secret in text for text in texts):
                self._break("secrets", f"a secret is in the answer or the log of a {kind}")
        if answer.seconds > answer.limit:
            self._break("time", f"a {kind} took {answer.seconds:.0f} s of {answer.limit:.0f} s")
        if answer.reason and not says_what_to_do(answer.reason):
            self._break("words", f"an error does not say what to do: {answer.reason[:200]}")

    def _delivered(self, request: Event, resource: Resource, step: Deploy) -> Answer:
        """Deliver a request that changes something; a second time if the step says so."""
        answer = self._send(request, resource, step.faults)
        if answer.killed and step.twice:
            return self._send(request, resource, note=" (delivered again)")
        if answer.data is not None and step.twice:
            before = facts.of(self.world)
            second = self._send(request, resource, note=" (delivered twice)")
            unsure = self._unsure()
            for line in _sure(facts.difference(before, facts.of(self.world)), unsure):
                self._break("again", line)
            for part in ("PhysicalResourceId", "Data"):
                was, now = answer.data.get(part), (second.data or {}).get(part)
                if was != now and not unsure:
                    self._break("again", f"{part} was {was}, and is {now}")
        return answer

    def _create(self, resource: Resource, step: Deploy) -> None:
        properties = self._properties(resource, step.changes)
        if resource.is_unsettled:  # what a killed Create left is found by the same properties
            properties = resource.attempted
        before, unsure = facts.of(self.world), self._unsure()
        resource.attempted = properties
        answer = self._delivered(event("Create", resource, properties), resource, step)
        if answer.data is None:
            if answer.physical_id:  # onEvent succeeded, isComplete failed
                resource.physical_id, resource.properties = answer.physical_id, properties
                self._remove(resource, (), before=before, unsure=unsure)
                return
            # The framework answers CREATE_FAILED, and the Delete of this id: nothing is called.
            self._check_restored(before, resource, answer)
            return
        resource.physical_id, resource.properties = self._id(resource, answer), properties
        self._settle(resource, answer)
        self._check_state(f"after the Create of {resource.owner}")
        if step.stack_fails:
            self._remove(resource, (), before=before, unsure=unsure)

    def _update(self, resource: Resource, step: Deploy) -> None:
        old, old_id = resource.properties, resource.physical_id
        new = self._properties(resource, step.changes)
        if new == old:
            return  # CloudFormation sends no request
        before, unsure = facts.of(self.world), self._unsure()
        request = event("Update", resource, new, OldResourceProperties=old)
        answer = self._delivered(request, resource, step)
        if answer.data is not None:
            resource.physical_id, resource.properties = self._id(resource, answer), new
            self._settle(resource, answer)
        if answer.killed and answer.data is None and not self.kind.cleans_up_at_rollback:
            resource.abandoned = new if new["ClusterName"] != old["ClusterName"] else {}
        if answer.data is None or step.stack_fails:
            self._roll_back(resource, old, new)
            self._check_restored(before, resource, answer, unsure)
        elif resource.physical_id != old_id:
            self._clean_up(resource, old_id, old)
        self._check_state(f"after the Update of {resource.owner}")

    def _roll_back(self, resource: Resource, old: dict[str, Any], new: dict[str, Any]) -> None:
        """CloudFormation's Update to the old properties, and its clean-up."""
        new_id, resource.properties = resource.physical_id, old
        request = event("Update", resource, old, OldResourceProperties=new)
        answer = self._repeated(request, resource, " (rollback)")
        if answer.data is None:
            resource.is_unsettled = True
            return
        resource.physical_id = self._id(resource, answer)
        self._settle(resource, answer)
        if new_id != resource.physical_id:
            self._clean_up(resource, new_id, new)

    def _clean_up(self, resource: Resource, physical_id: str, properties: dict[str, Any]) -> None:
        """CloudFormation's Delete of a physical id that was replaced; its failure is ignored."""
        request = event("Delete", resource, properties, PhysicalResourceId=physical_id)
        answer = self._repeated(request, resource, " (clean-up)")
        resource.is_unsettled |= answer.data is None

    def _remove(
        self,
        resource: Resource,
        faults: tuple[Fault, ...],
        *,
        twice: bool = False,
        before: Facts | None = None,
        unsure: frozenset[Place] = frozenset(),
    ) -> None:
        request = event("Delete", resource, resource.properties)
        answer = self._send(request, resource, faults) if faults else Answer()
        if answer.data is None:
            answer = self._repeated(request, resource, " (deleted again)" if faults else "")
        if answer.data is None:
            return
        if answer.data["PhysicalResourceId"] != resource.physical_id:
            self._break("again", f"a Delete answers id {answer.data['PhysicalResourceId']}")
        if twice:
            held = facts.of(self.world)
            self._repeated(request, resource, " (delivered twice)")
            for line in facts.difference(held, facts.of(self.world)):
                self._break("again", line)
        self.drifted.discard(self._place(resource))
        resource.physical_id, resource.properties, resource.is_unsettled = "", {}, False
        if before is not None:
            self._check_restored(before, resource, answer, unsure)
        self._check_state(f"after the Delete of {resource.owner}")

    def _repeated(self, request: Event, resource: Resource, note: str) -> Answer:
        """A request without faults: it succeeds, if need be after the obstacles are cleared."""
        before = facts.of(self.world)
        answer = self._send(request, resource, note=note)
        if answer.data is not None:
            return answer
        is_refusal = self.kind.controllers and request["RequestType"] == "Update"
        if "Nothing was changed" in answer.reason:
            for line in facts.difference(before, facts.of(self.world)):
                self._break("words", f"the error says that nothing was changed: {line}")
        if edits.has_users(self.world):
            for line in facts.difference(before, facts.of(self.world)):
                self._break("nodes", f"a removal was refused, and changed something: {line}")
        if self.kind.obstacles(self.world):
            for line in facts.difference(before, facts.of(self.world)) if is_refusal else ():
                self._break("others", f"a request was refused, and changed something: {line}")
            self._say("somebody does what the error asks for")
            self.kind.clear_obstacles(self.world)
            self.cleared = True
            answer = self._send(request, resource, note=note)
        # onEvent of a Create succeeded, and no node fits: a Delete follows.
        is_over = request["RequestType"] == "Create" and answer.physical_id
        if answer.data is None and not is_over:
            sentence = f"{request['RequestType']}{note} failed: {answer.reason[:300]}"
            if request["RequestType"] == "Create":  # its properties may be wrong for the cluster
                one = self._deployed(resource, request["ResourceProperties"])
                self.refusals.append(_Refusal(sentence, answer.reason, one, self._cluster_id(one)))
            else:
                self._break("retry", sentence)
        return answer

    def _id(self, resource: Resource, answer: Answer) -> str:
        """The physical id of an answer: the same cluster has the same id."""
        given = str((answer.data or {})["PhysicalResourceId"])
        region = resource.stack.split(":")[3]
        if not re.fullmatch(self.kind.physical_id.format(region=region), given):
            self._break("again", f"the physical id is {given}")
        return given

    def _settle(self, resource: Resource, answer: Answer) -> None:
        """After a success: what could not be cleaned up is tried again by the next request."""
        self.drifted.discard(self._place(resource))
        resource.is_unsettled = "could not be cleaned up" in answer.log

    # Checks ---------------------------------------------------------------------------------------

    def _place(self, resource: Resource) -> Place:
        """The cluster of a resource that exists."""
        return _place_of(resource, resource.properties)

    def _unsure(self) -> frozenset[Place]:
        """Clusters where something may be there or missing that no answer could avoid.

        What a request left may be in each cluster of the function's region.
        """
        left = {
            each.stack.split(":")[3]
            for each in self.resources
            if each.is_unsettled or each.abandoned
        }
        unsettled = {place for place in PLACES if place.region in left}
        return frozenset(self.drifted | unsettled | self.kind.obstacles(self.world))

    def _check_restored(
        self,
        before: Facts,
        resource: Resource,
        failed: Answer,
        unsure: frozenset[Place] = frozenset(),
    ) -> None:
        """All is as before the failed request, or the error names what is left.

        `unsure`: clusters where this was not certain before it.
        """
        now, still_unsure = facts.of(self.world), self._unsure()
        parts = facts.without_used_namespaces(now, facts.ours(before), facts.ours(now))
        lines = _sure(facts.difference(*parts), unsure)
        left = _LEFT.search(failed.log)
        # What an error names may be there until a request of this resource succeeds.
        resource.is_unsettled |= bool(lines) and (failed.killed or left is not None)
        for line in _sure(lines, still_unsure) if not failed.killed else ():
            if left is None:
                self._break("rollback", line)
            elif not facts.is_named(facts.fact_of(line), left[0]):
                self._break("words", f"the error does not name what is left: {line}")

    def _check_state(self, where: str) -> None:
        unsure = self._unsure()
        found = facts.of(self.world)
        deployed = []
        for each in self.resources:
            if each.physical_id and self._place(each) not in unsure:
                one = self._deployed(each, each.properties)
                deployed.append((one, self._cluster_id(one)))
        self.comparisons.append(
            _Comparison(where, found, tuple(deployed), self.background, self.orphans, unsure)
        )

    def _deployed(self, resource: Resource, properties: Mapping[str, Any]) -> _Deployed:
        place = _place_of(resource, properties)
        return _Deployed(
            self.kind.physical_id,
            place,
            self.world.eks[place].mode if place in self.world.eks else "",
            resource.stack,
            resource.logical_id,
            json.dumps(properties, sort_keys=True),
        )

    def _cluster_id(self, one: _Deployed) -> str:
        """CAST AI's id of a cluster; empty while it is not registered."""
        for each in self.world.castai.clusters.values():
            if (each.region, each.name) == (one.place.region, one.place.name):
                return each.id
        return ""

    def _check_marks(self, before: Facts) -> None:
        """What others made is still there, except on what was removed with all that is on it."""
        after = facts.of(self.world)
        for name in before.keys() - after.keys():
            host = name.partition(": ")[0]
            given_up = self.cleared and _is_field(name, before[name])
            is_removed = given_up or host in self.made_again
            stays = host in after and ": access key" not in name and not is_removed
            detached = before[name] == "attached" and not self.cleared
            its_own = ": " not in name and not self.cleared
            if stays or detached or its_own:
                self._break("others", f"{name} = {before[name]} is gone")
        for name in before.keys() & after.keys():
            given_up = self.cleared and _is_field(name, before[name])
            if before[name] != after[name] and not given_up:
                self._break("others", f"{name} was {before[name]}, and is {after[name]}")
        self.cleared = False
        self.made_again.clear()

    def _end(self) -> None:
        """The removal of all resources, and what is left."""
        # An agent in the same cluster goes first: the other one is refused until then.
        for resource in sorted(self.resources, key=lambda each: not each.physical_id):
            if not resource.physical_id and resource.is_unsettled:
                self._deploy_again(resource, resource.attempted)
            self._remove_at_the_end(resource)
        for resource in self.resources:
            if resource.abandoned:
                self._deploy_again(resource, resource.abandoned)
                self._remove_at_the_end(resource)
        found = facts.of(self.world)
        wanted = facts.ours(self.background)
        parts = facts.without_used_namespaces(found, wanted, facts.ours(found))
        for line in facts.difference(*parts):
            self._break("removal", line)
        for place, data in self.world.aws_auth.items():
            found = self.world.kubernetes[place].get("ConfigMap", "aws-auth", "kube-system") or {}
            if found.get("data") != data:
                self._break("others", f"aws-auth of {place.name} is {found.get('data')}")

    def _deploy_again(self, resource: Resource, properties: dict[str, Any]) -> None:
        """What was left is found by the same properties."""
        request = event("Create", resource, properties)
        answer = self._repeated(request, resource, " (deployed again)")
        resource.physical_id, resource.properties = answer.physical_id, properties
        if answer.data is not None:
            resource.physical_id = self._id(resource, answer)
        self._settle(resource, answer)

    def _remove_at_the_end(self, resource: Resource) -> None:
        if resource.physical_id:
            marks = facts.marks(facts.of(self.world))
            self._remove(resource, ())
            self._check_marks(marks)


def _place_of(resource: Resource, properties: Mapping[str, Any]) -> Place:
    return Place(resource.stack.split(":")[3], properties["ClusterName"])


def _sure(lines: list[str], unsure: frozenset[Place]) -> list[str]:
    """The lines of a difference without those of clusters that are unsure."""
    return [line for line in lines if not facts.is_of(facts.fact_of(line), unsure)]


def _shown(request: Event) -> str:
    """The properties of a request that differ from the old ones, or from the defaults."""
    old = request.get("OldResourceProperties", {})
    new = request["ResourceProperties"]
    quiet = ("ServiceToken", "SchemaVersion", "ApiUrl", "ApiKeySecret", "RequireAgent")
    changed = {k: v for k, v in new.items() if old.get(k) != v and k not in quiet}
    changed |= {k: None for k in old if k not in new}
    return " ".join(f"{name}={value}" for name, value in sorted(changed.items()))


def _is_field(name: str, value: object) -> bool:
    """Whether a mark is a field of ours that others set."""
    return ": field" in name or value == facts.FOREIGN


_LEFT: Final = re.compile(
    "(remove by hand|Remove access entry|could not be removed again).*", re.DOTALL
)
"""What an error says of what is left."""
_TAG_OF_THE_SHARED: Final = re.compile(r" policy arn:\S+:policy/CastEKSPolicy: tag (?!castai-eks)")
"""A user's tag on the policy that clusters share is that of the last deployment."""
REFUSED: Final = "a first Create"
"""The fact of a first Create that failed; its value is the reason."""
KNOWN: Final[dict[_Deployed, Facts]] = {}
"""What first Creates of the shipped code make."""
as_shipped: Callable[[], AbstractContextManager[None]] = nullcontext
"""Opened while a first Create is made: a fault that was put into the code is out of it."""
_CLUSTER_ID: Final = "c1a55e5d-0000-4000-8000-000000000000"
"""CAST AI's id of the cluster of a first Create; that of the day replaces it."""


def _made_by_a_create(kind: Kind, one: _Deployed, cluster_id: str) -> Facts:
    if one not in KNOWN:
        with as_shipped():
            KNOWN[one] = _made(kind, one)

    def of_the_day(fact: Any) -> Any:
        if not isinstance(fact, str):
            return fact
        # Names of roles have the first part of the id.
        return fact.replace(_CLUSTER_ID, cluster_id).replace(_CLUSTER_ID[:8], cluster_id[:8])

    return {of_the_day(name): of_the_day(value) for name, value in KNOWN[one].items()}


def _made(kind: Kind, one: _Deployed) -> Facts:
    """What a first Create makes in an account where nothing of ours is."""
    places, modes = ((one.place,), (one.mode,)) if one.mode else ((), ())
    with opened(places, modes, controllers=kind.controllers) as world:
        edits.background(world)
        before = facts.of(world)
        known = KnownCluster(_CLUSTER_ID, one.place.name, one.place.region, ACCOUNT)
        world.castai.clusters[_CLUSTER_ID] = known
        resource = Resource(one.stack, one.logical_id)
        request = event("Create", resource, json.loads(one.properties))
        answer = kind.function(world, resource).invoke(request)
        world.sleep(kind.settles)
        if answer.data is None:
            return {REFUSED: answer.reason}
        found = facts.ours(facts.of(world))
    return {name: value for name, value in found.items() if name not in before}
