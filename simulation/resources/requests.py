"""CloudFormation's requests, as the CDK's Provider framework hands them to a function.

Sources: AWS::CloudFormation::CustomResource in the CloudFormation user guide; the framework's
cfn-response.js and framework.js in aws-cdk-lib (custom-resources/lib/provider-framework/runtime).

* A Create that fails gets the physical id CREATE_FAILED. The framework answers the Delete of that
  id itself: the function does not see it.
* A function that is killed is a failed request, unless the framework was killed too: then Lambda
  delivers the request again.
* An Update that fails, or whose stack fails, is rolled back by an Update to the old properties,
  with the physical id that the resource has then. A physical id that an Update replaced gets a
  Delete in the clean-up, after the stack is complete or rolled back.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lambdas.common import custom_resource
from lambdas.common.clock import Clock
from lambdas.common.custom_resource import RequestFailedError
from simulation.lambda_runtime import lambda_runtime
from simulation.resources.calls import Fault, Gate, KilledError

Properties = Mapping[str, Any]
Event = dict[str, Any]
Respond = Callable[[Event, float], dict[str, Any]]
"""The function: event and seconds that it has."""
Waits = Callable[[Event, dict[str, Any]], bool]
"""Called before each isComplete with request and answer; returns whether there is one."""


@dataclass
class Resource:
    """One custom resource of a stack."""

    stack: str
    logical_id: str
    physical_id: str = ""
    """Empty: it does not exist."""
    properties: dict[str, Any] = field(default_factory=dict)
    attempted: dict[str, Any] = field(default_factory=dict)
    """The properties of the last Create."""
    is_unsettled: bool = False
    """Whether a killed or failed request may have left something."""
    abandoned: dict[str, Any] = field(default_factory=dict)
    """The properties of a killed Update to another cluster: what it made there is found by them."""

    @property
    def owner(self) -> str:
        """The stack and the resource, as the function names them."""
        return f"{self.stack.split('/')[1]}/{self.logical_id}"


@dataclass(frozen=True)
class Answer:
    """The end of a request."""

    data: Mapping[str, Any] | None = None
    """What the function returned; None: it failed."""
    reason: str = ""
    """Why it failed, as CloudFormation shows it."""
    log: str = ""
    """All that the function and its libraries log and print."""
    killed: bool = False
    seconds: float = 0.0
    """Of the longest invocation."""
    limit: float = 0.0
    """The function's time-out."""
    physical_id: str = ""
    """Of a request that failed after onEvent had answered."""


def event(kind: str, resource: Resource, properties: Properties, **more: object) -> Event:
    """A request."""
    if resource.physical_id:
        more = {"PhysicalResourceId": resource.physical_id, **more}
    return {
        "RequestType": kind,
        "StackId": resource.stack,
        "RequestId": "1",
        "LogicalResourceId": resource.logical_id,
        "ResourceType": "Custom::CastEks",
        "ResourceProperties": dict(properties),
        "ResponseURL": "https://response.invalid/?signature=of-the-days",
        **more,
    }


@dataclass
class Function:
    """The function of a custom resource, as the framework invokes it."""

    respond: Respond
    gate: Gate
    clock: Clock
    seconds: float
    """Its time-out."""
    waits: Waits = lambda _request, _answer: False
    longest: float = 0.0
    """Seconds of the longest invocation of the last request."""

    def invoke(
        self, request: Event, faults: tuple[Fault, ...] = (), log_level: str = "INFO"
    ) -> Answer:
        """One request: an invocation, and those of isComplete."""
        self.gate.begin(faults)
        physical_id, reason, killed = "", "", False
        self.longest = 0.0
        data: dict[str, Any] | None = None
        output = io.StringIO()
        with lambda_runtime(output, custom_resource.logger(), log_level):
            try:
                with custom_resource.answered_errors():
                    data = self._timed(request)
                    while self.waits(request, data):
                        physical_id = data["PhysicalResourceId"]
                        if self._timed({**request, **data})["IsComplete"]:
                            break
            except RequestFailedError as error:
                data, reason = None, str(error)
            except KilledError:
                data, killed = None, True
        self.gate.begin(())
        log = output.getvalue()
        return Answer(data, reason, log, killed, self.longest, self.seconds, physical_id)

    def _timed(self, request: Event) -> dict[str, Any]:
        began = self.clock.now()
        try:
            return self.respond(request, self.seconds)
        finally:
            self.longest = max(self.longest, self.clock.now() - began)
