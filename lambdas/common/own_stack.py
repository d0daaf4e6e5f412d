"""A custom resource's function serves the stack that made it, and no other caller.

Whoever may invoke functions could send a request of CloudFormation's form; the id of a stack has a
UUID in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from lambdas.common.errors import PermanentError, SettingsError
from lambdas.common.text import cut

STACK_ID: Final = "STACK_ID"


class ForeignRequestError(PermanentError):
    """The request is of another stack, or of no stack at all."""


def check(event: Mapping[str, Any]) -> None:
    """Compare the request's StackId with that in the environment.

    Raises ForeignRequestError, or SettingsError where the environment has none.
    """
    own = os.environ.get(STACK_ID, "")
    if not own:
        raise SettingsError(f"Set {STACK_ID} to the id of this function's stack")
    asking = event.get("StackId", "")
    if asking != own:
        raise ForeignRequestError(
            "Call this function through its own CloudFormation stack: the request names "
            f"{cut(asking) or 'none'}"
        )
