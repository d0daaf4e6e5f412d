"""What the simulated scheduler counts as a pod's requests: the same table as the estimate's."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from kubesim.requests import of_pod
from tests.support.requests import SPECS


@pytest.mark.parametrize(("spec", "requested"), SPECS.values(), ids=SPECS)
def test_the_requests_of_a_pod(spec: dict[str, Any], requested: dict[str, int]) -> None:
    exact = {
        name: Decimal(amount) / (1000 if name == "cpu" else 1) for name, amount in requested.items()
    }
    assert {name: amount for name, amount in of_pod(spec).items() if amount} == exact
