"""The page of settings, docs/settings.md. Pure: no CDK, no network."""

from __future__ import annotations

from pathlib import Path

from stacks import settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

_HEAD = """<!-- Written by `make docs` from stacks/settings.py. Change that file, not this one. -->

# Settings

A setting is a context key, in `cdk.json` or as `cdk -c key=value`. No setting is required, and none
is secret. A wrong or unknown setting stops the synth with one message that lists every fault.

"""


def page() -> str:
    """The whole page, as Markdown."""
    return _HEAD + settings.table().replace("### ", "## ")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
