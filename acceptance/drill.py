"""The drill: a notice of our own, the function's result from its log, the cluster's timeline."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from acceptance import checks
from acceptance.checks import NOTICE
from acceptance.errors import AcceptanceError
from acceptance.kubernetes import Found
from acceptance.run import Run
from sandbox.aws import SPOT_NOTICE
from sandbox.demo.timeline import Timeline
from sandbox.demo.watcher import Watcher

DRAWN = 0.2  # s between two looks at the timeline
READ = 2.0  # s between two reads of the function's log
LATE = 120.0  # s after the notice for a result in the log: retry and delivery of the log
REPLACED = 180.0  # s for the replacements: nodes may have to pull images
SKEW = 600.0  # s that this machine's clock may differ from AWS's


def drill(run: Run, found: Found) -> None:
    """Publish the notice. Compare the handler's result with the cluster.

    Raises AcceptanceError if the function fails or logs no result in time.
    """
    with Watcher(run.connect, found.name) as watcher:
        run.touch(node=found.name)
        given = datetime.now(UTC).replace(microsecond=0).timestamp()
        event = _publish(run)
        run.view.step(f"notice {event} for {run.scope.instance}, node {found.name}")
        with run.view.drain(watcher, given, given + NOTICE) as drawing:
            poll = partial(_poll, meanwhile=drawing.update)
            result = poll(lambda: _result(run, event, given), seconds=NOTICE + LATE, every=READ)
            if result is None:
                raise AcceptanceError(_no_result(run, event))
            if result["outcome"] == "drained":
                poll(lambda: watcher.read(Timeline.settled), seconds=REPLACED, every=DRAWN)
        run.report.result = result
        for check in watcher.read(
            lambda timeline: list(checks.of_drill(run.scope, result, timeline))
        ):
            run.add(check)


def _publish(run: Run) -> str:
    detail = {"instance-id": run.scope.instance, "instance-action": "terminate"}
    entry = {
        "Source": run.scope.source,
        "DetailType": SPOT_NOTICE,
        "Detail": json.dumps(detail),
    }
    answer = run.account.client("events").put_events(Entries=[entry])["Entries"][0]
    if "EventId" not in answer:
        raise AcceptanceError(f"EventBridge refused the drill's event: {answer}")
    return str(answer["EventId"])


def _result(run: Run, event: str, given: float) -> dict[str, Any] | None:
    """Return the result that the function logged. Raises AcceptanceError for its error."""
    for line in _log(run, given - SKEW):
        if line.get("event_id") != event:
            continue
        if "outcome" in line:
            return line
        if line.get("level") == "ERROR":
            raise AcceptanceError(f"The function failed: {line.get('fault', line)}")
    return None


def _log(run: Run, since: float) -> Iterator[dict[str, Any]]:
    pages = (
        run.account.client("logs")
        .get_paginator("filter_log_events")
        .paginate(logGroupName=run.outputs["LogGroupName"], startTime=int(since * 1000))
    )
    for page in pages:
        for event in page["events"]:
            try:
                line = json.loads(event["message"])
            except ValueError:  # Lambda's own lines
                continue
            if isinstance(line, dict):
                yield line


def _no_result(run: Run, event: str) -> str:
    return (
        f"Look for event {event} in CloudTrail and in Lambda's metrics: the function "
        f"{run.scope.spot_handler} logged no result in {NOTICE + LATE:.0f} s"
    )


def _poll(
    found: Callable[[], Any], *, meanwhile: Callable[[], None], seconds: float, every: float
) -> Any:  # noqa: ANN401 - what `found` returns
    """Call `found` every `every` seconds until it returns something, for at most `seconds`.

    `meanwhile` runs more often. Returns the last answer.
    """
    end = time.monotonic() + seconds
    while True:
        answer = found()
        meanwhile()
        if answer or time.monotonic() >= end:
            return answer
        again = time.monotonic() + every
        while time.monotonic() < again:
            time.sleep(DRAWN)
            meanwhile()
