from __future__ import annotations

import pytest

from lambdas.common.text import (
    LIMIT,
    REASON_LIMIT,
    REFUSAL_LIMIT,
    cut,
    cut_front,
    cut_lines,
    shown,
)


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
def test_text_is_cut_to_one_line_at_a_sentence_or_a_word(given: object, expected: str) -> None:
    assert cut(given) == expected


def test_a_refusal_has_a_longer_limit() -> None:
    assert len(cut("x" * 10_000, REFUSAL_LIMIT)) == REFUSAL_LIMIT


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("as it is", "as it is"),
        ("two\nlines\tand  spaces ", "two lines and spaces"),
        ("x" * LIMIT, "x" * LIMIT),
        ("x" * (LIMIT + 1), "…" + "x" * (LIMIT - 1)),
        ("word " * 100, "…" + "word " * 38 + "word"),
        ("b" * 300 + " end", "…" + "b" * (LIMIT - 5) + " end"),
    ],
)
def test_the_end_of_a_text_is_cut_before_a_word(given: object, expected: str) -> None:
    assert cut_front(given) == expected


SENTENCE = "Remove access entry castai-agent by hand. "


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Do this\n- a\n- b", "Do this\n- a\n- b"),
        ("x" * REASON_LIMIT, "x" * REASON_LIMIT),
        ("Do this\n" + SENTENCE * 40, "Do this\n" + (SENTENCE * 23).rstrip()),
        ("Do this\n" + "a" * 900 + "\n" + SENTENCE * 40, "Do this\n" + "a" * 900 + "\n…"),
        ("a" * 996 + "\nb", "a" * 996 + "\nb"),
        ("a" * 996 + "\n" + "b" * 9, "a" * 996 + "\n…"),
        ("a" * 997 + "\nb" * 9, "a" * 994 + "…"),
        ("é" * 600, "é" * 498 + "…"),
    ],
)
def test_a_message_is_cut_by_whole_lines(given: str, expected: str) -> None:
    found = cut_lines(given)
    assert found == expected
    assert len(found.encode()) <= REASON_LIMIT


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("eu-central-1", '"eu-central-1"'),
        (["sg-1", 2, True], '["sg-1", 2, true]'),
        ({"a": "b"}, "a map of length 1"),
        ("two\nlines", "text of length 9"),
        ("arn:aws:iam::123456789012:role/CastLambdaRole", None),
        ("12345678-1234-1234-1234-123456789012", None),
        ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "text of length 40"),
        ("c0de" * 16, "text of length 64"),
        ("https://user:password@host.test", "text of length 31"),
        (["c0de" * 16], "[text of length 64]"),
    ],
)
def test_a_value_that_could_be_a_secret_is_shown_by_its_length(
    given: object, expected: str | None
) -> None:
    assert shown(given) == (expected or f'"{given}"')
