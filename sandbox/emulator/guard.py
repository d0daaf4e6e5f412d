"""Check the emulator's internals before a patch uses them: another release may differ."""

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any


class EmulatorChangedError(RuntimeError):
    """The installed emulator lacks something that a patch needs."""


def module(name: str) -> ModuleType:
    """Import a module of the emulator. Raises EmulatorChangedError if that fails."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _changed(f"module {name} cannot be imported: {error}") from error


def function(owner: ModuleType, name: str, *parameters: str) -> Callable[..., Any]:
    """Return the function ``owner.name``, after a check that its parameters start as expected.

    Raises EmulatorChangedError if it is missing or has other parameters.
    """
    found = getattr(owner, name, None)
    if not callable(found):
        raise _changed(f"{owner.__name__}.{name} does not exist")
    actual = tuple(inspect.signature(found).parameters)
    if actual[: len(parameters)] != parameters:
        raise _changed(f"{owner.__name__}.{name} takes {actual}, expected {parameters}")
    return found


def value(owner: ModuleType, name: str, kind: type) -> Any:
    """Return the value ``owner.name``. Raises EmulatorChangedError if it has another type."""
    found = getattr(owner, name, None)
    if not isinstance(found, kind):
        raise _changed(f"{owner.__name__}.{name} is not a {kind.__name__}")
    return found


def _changed(what: str) -> EmulatorChangedError:
    version = importlib.metadata.version("ministack")
    return EmulatorChangedError(
        "Install the emulator version that sandbox/emulator/requirements.txt pins "
        f"(rm -r .venv-emulator; make setup), or adapt sandbox/emulator to {version}: {what}"
    )
