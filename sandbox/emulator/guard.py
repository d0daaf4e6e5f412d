"""Patching someone else's module without being surprised by its next release."""

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any


class EmulatorChangedError(RuntimeError):
    """The installed emulator lacks something that a patch of ours stands on."""


def module(name: str) -> ModuleType:
    """Import a module of the emulator, or say that it is gone."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _changed(f"module {name} cannot be imported: {error}") from error


def function(owner: ModuleType, name: str, *parameters: str) -> Callable[..., Any]:
    """The function ``owner.name``, after a check that its parameters start as expected.

    Raises EmulatorChangedError when it is missing or takes something else.
    """
    found = getattr(owner, name, None)
    if not callable(found):
        raise _changed(f"{owner.__name__}.{name} is gone")
    actual = tuple(inspect.signature(found).parameters)
    if actual[: len(parameters)] != parameters:
        raise _changed(f"{owner.__name__}.{name} takes {actual}, expected {parameters}")
    return found


def value(owner: ModuleType, name: str, kind: type) -> Any:
    """The module-level value ``owner.name``, after a check of its type."""
    found = getattr(owner, name, None)
    if not isinstance(found, kind):
        raise _changed(f"{owner.__name__}.{name} is no {kind.__name__}")
    return found


def _changed(what: str) -> EmulatorChangedError:
    version = importlib.metadata.version("ministack")
    return EmulatorChangedError(
        "Install the emulator version that sandbox/emulator/requirements.txt pins "
        f"(rm -r .venv-emulator; make setup), or adapt sandbox/emulator to {version}: {what}"
    )
