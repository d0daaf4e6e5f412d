"""The checks of the demo. Pure; each raises DemoError when it fails."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sandbox.demo.inventory import Thing, named
from sandbox.demo.timeline import Timeline
from sandbox.errors import SandboxError


class DemoError(SandboxError):
    """A check of the demo failed."""


def drained(result: Mapping[str, Any], timeline: Timeline) -> None:
    """Compare the handler's result with what the cluster showed."""
    counted = tuple(result["pods"][word] for word in ("evicted", "forced", "left"))
    faults = []
    if result["outcome"] != "drained":
        faults.append(f"the outcome is {result['outcome']}: {result['left']}")
    if counted != timeline.count():
        faults.append(
            f"evicted, forced, left: the handler counted {counted}, the cluster shows "
            f"{timeline.count()}"
        )
    if timeline.lost():
        faults.append(f"pods that did not come back: {', '.join(timeline.lost())}")
    if faults:
        raise DemoError("The demo went wrong: " + "; ".join(faults))


def rights(who: str, answers: Mapping[str, bool], *, allowed: Collection[str]) -> None:
    """Compare a subject's permissions with those that it should have."""
    wrong = [
        f"may {'' if may else 'not '}{act}"
        for act, may in answers.items()
        if may is not (act in allowed)
    ]
    if wrong:
        raise DemoError(f"{who} {', '.join(wrong)}")


def same(before: Collection[Thing], after: Collection[Thing]) -> None:
    """Check that the account and the cluster are as before the demo."""
    left, missing = set(after) - set(before), set(before) - set(after)
    if left:
        raise DemoError(f"cdk destroy left behind: {named(left)}")
    if missing:
        raise DemoError(f"cdk destroy took what was there before: {named(missing)}")


def secret_unseen(secret: str, texts: Iterable[tuple[str, bytes]]) -> int:
    """The number of texts searched. Raises DemoError when one has the secret."""
    looked, seen = 0, []
    for place, text in texts:
        looked += 1
        if secret.encode() in text:
            seen.append(place)
    if seen:
        raise DemoError(f"CAST AI's API key can be read in: {', '.join(seen)}")
    return looked


def disconnected(cluster: Mapping[str, Any]) -> None:
    """Check that CAST AI has no access to the account."""
    if cluster["credentials"] or cluster["principal"] or cluster["status"] != "deleting":
        raise DemoError(f"CAST AI is still connected: {cluster['status']}")
