"""Inputs from outside as files, and strategies that change them.

tests/corpus/<kind>/ holds one input a file: JSON as its value, another file as text. A marker
stands for a secret, because a file with the form of a key would be a finding of the secret scan.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

CORPUS: Final = Path(__file__).parents[1] / "corpus"

_LETTERS: Final = "Gh1Ij2Kl3"
SECRETS: Final = {
    "@API_KEY@": "c0de" * 16,
    "@ACCESS_KEY@": f"{_LETTERS}/{_LETTERS}+{_LETTERS}/{_LETTERS}+",
    "@PRIVATE_KEY@": f"-----BEGIN {'PRIVATE'} KEY-----\n{_LETTERS * 7}\n-----END PRIVATE KEY-----",
    "@PASSWORD_URL@": f"https://user:{_LETTERS}@proxy.test",
}
"""The markers of the files, with what replaces them."""

Input = Any
Way = tuple[str | int, ...]
"""The keys and positions that lead to a value."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ODD: Final = (
    *(None, True, False, 0, -1, 2**63, 1e308, "", " ", "\n", "*", "../..", "x" * 5000, "²", "٣"),
    *("\ud800", "\x00", "é" * 300, "9" * 5000, "$(id)", "{{x}}", "%s%n", "null", "1e999", "-0"),
    *([], [[]], [None], {}, {"": None}, {"a": {"b": []}}),
)
_SNIPPETS: Final = (
    *("!!timestamp", "!!int ", "!!bool ", "!!map ", "!!set ", "!!binary ", "&a ", "*a", "<<: "),
    *("- ", ": ", "? ", "| ", "> ", "\n", "\t", "#", "'", '"', "[", "]", "{", "}", ",", "%", "---"),
    *("2026-99-99", ".nan", ".inf", "0x", "1_000", "\\u0000", "\\ud800", "\x85", "\u2028"),
    *("\ufeff", "x" * 3000),
)


def names(kind: str) -> list[str]:
    """The files of a kind, for a test's parameters."""
    return sorted(path.name for path in (CORPUS / kind).iterdir())


def load(kind: str, name: str) -> Input:
    """The input of a file, with secrets in the place of the markers."""
    text = (CORPUS / kind / name).read_text(encoding="utf-8")
    return _revealed(json.loads(text) if name.endswith(".json") else text)


def written(given: Input) -> str:
    """The text of a file for an input, with markers in the place of the secrets."""
    text = given if isinstance(given, str) else json.dumps(given, indent=2)
    for marker, secret in SECRETS.items():
        text = text.replace(json.dumps(secret)[1:-1], marker).replace(secret, marker)
    return text


def _revealed(value: Input) -> Input:
    if isinstance(value, dict):
        return {key: _revealed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_revealed(inner) for inner in value]
    if isinstance(value, str):
        for marker, secret in SECRETS.items():
            value = value.replace(marker, secret)
    return value


@st.composite
def changed(draw: st.DrawFn, kind: str, *, typed: bool = False, secrets: bool = False) -> Input:
    """An input of the corpus with one to four changes; with `secrets` they put some anywhere.

    With `typed`, as for objects that an API server has checked, values keep their types, and the
    fields that each object has stay.
    """
    given = load(kind, draw(st.sampled_from(names(kind))))
    odd = st.sampled_from([*_ODD, *(SECRETS.values() if secrets else ())])
    for _ in range(draw(st.integers(1, 4))):
        ways = [way for way in _ways(given) if not typed or _may_change(way)]
        if not ways:
            break
        way = draw(st.sampled_from(ways))
        given = _put(given, way, draw(_replacements(_at(given, way), odd, typed=typed)))
    return given


_GONE: Final = object()


def _replacements(
    value: Input, odd: st.SearchStrategy[Input], *, typed: bool
) -> st.SearchStrategy[Input]:
    """Other values for this one; _GONE removes it."""
    if isinstance(value, str):
        own = _edited(value) | odd.filter(_is_text)
    elif isinstance(value, bool):
        own = st.booleans()
    elif isinstance(value, int):
        own = st.integers(-(2**31), 2**31)
    elif isinstance(value, list) and value:
        own = st.sampled_from([[], value * 2, value[1:], value[::-1]])
    elif isinstance(value, dict) and value:
        own = st.just(value) if typed else _renamed(value)
    else:
        own = st.just(value)
    return own | st.just(_GONE) if typed else own | odd | st.just(_GONE) | _nested(value)


def _may_change(way: Way) -> bool:
    """Whether an API server may answer without this value, or with another one."""
    return len(way) > 1 and way[-1] not in ("metadata", "name")


def _is_text(value: Input) -> bool:
    """Text that JSON in UTF-8 can have."""
    return isinstance(value, str) and not _SURROGATE.search(value)


@st.composite
def _edited(draw: st.DrawFn, text: str) -> str:
    """The text with up to 20 characters replaced by a snippet."""
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 20)))
    return text[:start] + draw(st.sampled_from(_SNIPPETS) | st.text(max_size=5)) + text[end:]


def _renamed(value: dict[str, Any]) -> st.SearchStrategy[Input]:
    first, *rest = value
    return st.sampled_from(["", "x", first.lower(), "\u2028", "k" * 5000]).map(
        lambda name: {name: value[first], **{key: value[key] for key in rest}}
    )


def _nested(value: Input) -> st.SearchStrategy[Input]:
    return st.sampled_from([[value], {"x": value}])


def _ways(value: Input, way: Way = ()) -> Iterator[Way]:
    yield way
    inner = value.items() if isinstance(value, dict) else ()
    for key, each in enumerate(value) if isinstance(value, list) else inner:
        yield from _ways(each, (*way, key))


def _at(value: Input, way: Way) -> Input:
    for key in way:
        value = value[key]
    return value


def _put(value: Input, way: Way, new: Input) -> Input:
    """The value with another one at the end of the way; the given one stays as it is."""
    if not way:
        return value if new is _GONE else new
    key, *rest = way
    copy = dict(value) if isinstance(value, dict) else list(value)
    if not rest and new is _GONE:
        del copy[key]
    else:
        copy[key] = _put(copy[key], tuple(rest), new)
    return copy
