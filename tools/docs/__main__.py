"""`python -m tools.docs` (`make docs`) writes every document that is generated from the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tools.docs import manual, permissions, rbac_manifest, settings_table

WRITERS: Final[tuple[Callable[[], None], ...]] = (
    settings_table.main,
    permissions.main,
    manual.main,
    rbac_manifest.main,
)

if __name__ == "__main__":
    for write in WRITERS:
        write()
