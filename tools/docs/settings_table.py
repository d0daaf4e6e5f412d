"""Write the table of settings: `python -m tools.docs.settings_table` (`make docs`).

Pure but for the file: no CDK, no network.
"""

from __future__ import annotations

import re
from pathlib import Path

from stacks import settings

README = Path(__file__).parents[2] / "README.md"
_MARKED = re.compile(r"(<!-- settings: begin[^\n]*-->\n).*(<!-- settings: end -->\n)", re.DOTALL)


def current(text: str) -> str:
    """The text with the table of today between its markers.

    Raises ValueError where the markers are not there.
    """
    written, times = _MARKED.subn(lambda m: f"{m[1]}\n{settings.table()}\n{m[2]}", text)
    if times != 1:
        raise ValueError("Put the two settings markers back into README.md: the table goes there")
    return written


def main() -> None:
    """Write the README."""
    README.write_text(current(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
