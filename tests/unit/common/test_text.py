from __future__ import annotations

import pytest

from lambdas.common.text import LIMIT, REFUSAL_LIMIT, cut


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("as it is", "as it is"),
        ("two\nlines\tand  spaces ", "two lines and spaces"),
        (None, "None"),
        ("x" * LIMIT, "x" * LIMIT),
        ("x" * (LIMIT + 1), "x" * (LIMIT - 1) + "…"),
        (" " * 10_000 + "x", ""),
        ("word " * 100, "word " * 38 + "word…"),
        ("a" * 120 + ". Preemption is " + "b" * 100, "a" * 120 + "."),
        ("a. " + "b" * 300, "a. " + "b" * (LIMIT - 4) + "…"),
    ],
)
def test_text_from_outside_is_one_short_line(given: object, expected: str) -> None:
    assert cut(given) == expected


def test_a_refusal_may_be_longer() -> None:
    assert len(cut("x" * 10_000, REFUSAL_LIMIT)) == REFUSAL_LIMIT
