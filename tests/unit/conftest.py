"""The unit tier is pure: a test that opens a socket or imports CDK fails."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Make an import of CDK fail: CDK imports jsii, which starts Node."""
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(collector, pytest.Module):
            patch.setitem(sys.modules, "jsii", None)  # type: ignore[arg-type] - as import has it
        return (yield)


@pytest.fixture(autouse=True)
def _no_network() -> object:
    disable_socket(allow_unix_socket=True)  # asyncio's self-pipe is a socket pair
    yield
    enable_socket()
