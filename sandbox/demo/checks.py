"""What must hold for the demo to have gone well. Pure; each raises DemoError where it does not."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sandbox.demo.inventory import Thing, named
from sandbox.demo.timeline import Story
from sandbox.errors import SandboxError


class DemoError(SandboxError):
    """The demo ran and showed something that must not be."""


def drained(result: Mapping[str, Any], story: Story) -> None:
    """The handler's account against what the cluster showed."""
    counted = tuple(result["pods"][word] for word in ("evicted", "forced", "left"))
    faults = []
    if result["outcome"] != "drained":
        faults.append(f"the outcome is {result['outcome']}: {result['left']}")
    if counted != story.count():
        faults.append(
            f"evicted, forced, left: the handler counted {counted}, the cluster shows "
            f"{story.count()}"
        )
    if story.lost():
        faults.append(f"pods that did not come back: {', '.join(story.lost())}")
    if faults:
        raise DemoError("The demo went wrong: " + "; ".join(faults))


def rights(who: str, answers: Mapping[str, bool], *, allowed: Collection[str]) -> None:
    """What Kubernetes lets someone do against what they should be able to do."""
    wrong = [
        f"may {'' if may else 'not '}{act}"
        for act, may in answers.items()
        if may is not (act in allowed)
    ]
    if wrong:
        raise DemoError(f"{who} {', '.join(wrong)}")


def same(before: Collection[Thing], after: Collection[Thing]) -> None:
    """The account and the cluster are as they were."""
    left, missing = set(after) - set(before), set(before) - set(after)
    if left:
        raise DemoError(f"cdk destroy left behind: {named(left)}")
    if missing:
        raise DemoError(f"cdk destroy took what was there before: {named(missing)}")


def secret_unseen(secret: str, texts: Iterable[tuple[str, bytes]]) -> int:
    """In how many texts the secret was looked for; none of them may have it."""
    looked, seen = 0, []
    for place, text in texts:
        looked += 1
        if secret.encode() in text:
            seen.append(place)
    if seen:
        raise DemoError(f"CAST AI's API key can be read in: {', '.join(seen)}")
    return looked


def disconnected(cluster: Mapping[str, Any]) -> None:
    """CAST AI has no way into the account any more."""
    if cluster["credentials"] or cluster["principal"] or cluster["status"] != "deleting":
        raise DemoError(f"CAST AI is still connected: {cluster['status']}")
