"""What the functional tests of all handlers share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sandbox.castai_api.app import App
from sandbox.castai_api.server import running
from sandbox.castai_api.state import State


@dataclass(frozen=True)
class CastaiServer:
    """The simulated CAST AI. A test gives it a state of its own."""

    app: App
    url: str

    def serve(self, state: State) -> str:
        """Answer from this state. Returns the URL."""
        self.app.state = state
        return self.url


@pytest.fixture(scope="session")
def castai_server() -> Iterator[CastaiServer]:
    """One server for all tests: its start and end take longer than a test's calls."""
    app = App(State("no-test-has-begun"))
    with running(app) as url:
        yield CastaiServer(app, url)
