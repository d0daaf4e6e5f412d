"""The page of settings, docs/settings.md. Pure: no CDK, no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import inspect

from lambdas.common import properties
from stacks.settings import BY_PROPERTIES, PREFIX, groups
from tools.docs.markdown import table

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

_HEAD = """<!-- Written by `make docs` from stacks/settings.py. Change that file, not this one. -->

# Settings

A setting is a context key, in `cdk.json` or as `cdk -c key=value`. No setting is required, and none
is secret. A wrong or unknown setting stops the synth with one message that lists every fault.

"""
_COLUMNS = ["default", "allowed", "what it does"]


def page() -> str:
    """The whole page, as Markdown."""
    return _HEAD + "\n\n".join(_tables()) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def _tables() -> Iterator[str]:
    """A heading and a table for each group, and for the properties of each JSON setting."""
    for group in groups().values():
        yield f"## {group.__doc__}"
        rows = [_row(each, PREFIX) for each in msgspec.structs.fields(group)]
        yield table(["context key", *_COLUMNS], rows)
    for setting in BY_PROPERTIES:
        yield f"## Properties in `{PREFIX}{setting.key}`, those of `{setting.resource}`"
        rows = [
            _row(each)
            for each in msgspec.structs.fields(setting.struct)
            if each.encode_name not in setting.elsewhere
        ]
        yield table(["property", *_COLUMNS], rows)


def _row(field: msgspec.structs.FieldInfo, prefix: str = "") -> list[str]:
    info = inspect.type_info(field.type)
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    shown = "none" if value is None else f"`{msgspec.json.encode(value).decode()}`"
    return [
        f"`{prefix}{field.encode_name}`",
        shown,
        properties.allowed(info),
        properties.description(info),
    ]


if __name__ == "__main__":
    main()
