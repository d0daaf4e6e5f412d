"""The unit tier is pure: a socket opened here is a mistake, and so is an import of CDK."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """CDK imports jsii, which starts Node: a machine may have none on its PATH."""
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(collector, pytest.Module):
            patch.setitem(sys.modules, "jsii", None)  # type: ignore[arg-type] - as import has it
        return (yield)


@pytest.fixture(autouse=True)
def _no_network() -> object:
    disable_socket(allow_unix_socket=True)  # asyncio's own wake-up pipe is a socket pair
    yield
    enable_socket()
