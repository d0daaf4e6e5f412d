"""The checks of the demo. Pure functions. Each raises DemoError if it fails."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sandbox.demo.inventory import Thing, named
from sandbox.demo.timeline import Timeline
from sandbox.errors import SandboxError

ROUNDING = 1e-6  # USD an hour


class DemoError(SandboxError):
    """A check of the demo failed."""


def drained(result: Mapping[str, Any], timeline: Timeline) -> None:
    """Compare the handler's result with the timeline of the cluster."""
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
        faults.append(f"pods without a ready replacement: {', '.join(timeline.lost())}")
    if faults:
        raise DemoError("The demo failed: " + "; ".join(faults))


def rights(subject: str, answers: Mapping[str, bool], *, allowed: Collection[str]) -> None:
    """Compare a subject's permissions with those that it must have."""
    wrong = [
        f"may {'' if may else 'not '}{act}"
        for act, may in answers.items()
        if may is not (act in allowed)
    ]
    if wrong:
        raise DemoError(f"{subject} {', '.join(wrong)}")


def adds_up(now: float, saved: Iterable[float], last: float) -> None:
    """Check that what the steps of an estimate save is what the last one costs less than now."""
    if abs(now - sum(saved) - last) > ROUNDING:
        raise DemoError(f"the steps save {sum(saved)}, and {now} less that is not {last}")


def same(before: Collection[Thing], after: Collection[Thing]) -> None:
    """Check that the account and the cluster are as before the demo."""
    left, missing = set(after) - set(before), set(before) - set(after)
    if left:
        raise DemoError(f"cdk destroy did not remove: {named(left)}")
    if missing:
        raise DemoError(f"cdk destroy removed what existed before: {named(missing)}")


def secret_absent(secret: str, texts: Iterable[tuple[str, bytes]]) -> int:
    """Return the number of texts searched. Raises DemoError if one contains the secret."""
    searched, places = 0, []
    for place, text in texts:
        searched += 1
        if secret.encode() in text:
            places.append(place)
    if places:
        raise DemoError(f"CAST AI's API key is in: {', '.join(places)}")
    return searched


def disconnected(cluster: Mapping[str, Any]) -> None:
    """Check that CAST AI has no access to the account."""
    if cluster["credentials"] or cluster["principal"] or cluster["status"] != "deleting":
        raise DemoError(f"CAST AI is still connected: {cluster['status']}")
