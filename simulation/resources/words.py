"""How an error begins: with what to do."""

from __future__ import annotations

import re
from typing import Final

_VERB: Final = re.compile(
    "(Add|Allow|Call|Change|Check|Clear|Connect|Correct|Create|Delete|Detach|Give|Leave|Let|Look|"
    "Make|Put|Raise|Read|Remove|Scale|Set|Take|Try|Undo|Use|Wait)[:,]? "
)
"""The next verb is a word here. `Report` is none: it begins the error of a bug."""


def says_what_to_do(reason: str) -> bool:
    """Whether an error begins with a verb: `The role is gone` and `iam:GetUser: …` do not."""
    return _VERB.match(reason) is not None
