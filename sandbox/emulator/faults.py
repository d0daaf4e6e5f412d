"""Errors that AWS gives now and then, on demand: a test names operation, code and count.

A fault is answered after the request was authorized, and nothing is changed.
"""

import dataclasses
import threading
from typing import Any

import guard

DEFAULT_THROTTLING = ("ThrottlingException", 400)
THROTTLING = {
    "cloudformation": ("Throttling", 400),
    "ec2": ("RequestLimitExceeded", 503),
    "eks": ("ThrottlingException", 429),
    "iam": ("Throttling", 400),
    "lambda": ("TooManyRequestsException", 429),
    "monitoring": ("Throttling", 400),
    "sts": ("Throttling", 400),
}


@dataclasses.dataclass
class Fault:
    """An error for the next calls of an operation."""

    service: str
    operation: str
    code: str
    message: str
    status: int
    times: int

    @classmethod
    def of(cls, wanted: dict[str, Any]) -> "Fault":
        """Return the fault that a request of the control API describes.

        Without a code it is the service's throttling.
        """
        service = wanted["service"]
        code, status = THROTTLING.get(service, DEFAULT_THROTTLING)
        message = "Rate exceeded"
        if wanted.get("code"):
            code, status, message = wanted["code"], 400, wanted.get("message") or wanted["code"]
        return cls(service, wanted["operation"], code, message, status, int(wanted.get("times", 1)))


class Faults:
    """The faults that are left to answer, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, wanted: dict[str, Any]) -> None:
        with self._lock:
            self._faults.append(Fault.of(wanted))

    def left(self) -> list[dict[str, Any]]:
        with self._lock:
            return [dataclasses.asdict(fault) for fault in self._faults]

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, service: str, operation: str) -> Fault | None:
        """Return the fault of this call, and count it."""
        with self._lock:
            for fault in self._faults:
                if (fault.service, fault.operation) == (service, operation):
                    fault.times -= 1
                    if fault.times == 0:
                        self._faults.remove(fault)
                    return fault
        return None

    def install(self) -> None:
        """Wrap every service of the emulator, behind its authorization."""
        app = guard.module("ministack.app")
        actions = guard.module("ministack.core.iam_actions")
        services = guard.value(app, "SERVICE_HANDLERS", dict)
        guard.function(actions, "extract_iam_action", "service", "method", "path", "headers")
        guard.function(actions, "access_denied_response", "service", "action")
        guard.function(app, "_routing_params", "method", "path", "headers", "body")
        for service, handler in services.items():
            services[service] = self._with_faults(app, actions, service, handler)

    def _with_faults(self, app: Any, actions: Any, service: str, handler: Any) -> Any:
        async def handle(
            method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
        ) -> Any:
            params = app._routing_params(method, path, headers, body, query)
            action = actions.extract_iam_action(service, method, path, headers, body, params)
            fault = self.take(service, str(action).partition(":")[2])
            if fault is None:
                return await handler(method, path, headers, body, query)
            _status, answer_headers, answer = actions.access_denied_response(
                service,
                str(action),
                "",
                "",
                error_code=fault.code,
                message=fault.message,
                headers=headers,
            )
            return fault.status, answer_headers, answer

        return handle
