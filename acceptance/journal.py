"""What a run has touched, in a file, so that a later run can undo what an interrupted one left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from acceptance.errors import AcceptanceError

FOLDER = Path(".acceptance")


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is not undone yet. Each field is written before the thing is touched."""

    account: str
    region: str
    cluster: str
    rbac: bool = False
    """It creates RBAC objects of the spot handler."""
    stacks: tuple[str, ...] = ()
    """It deploys these stacks. Their assembly is in the journal's folder."""
    node: str = ""
    """The node that the drill cordons; empty: none yet."""


class Journal:
    """The journal of one cluster. Its folder also has the run's cloud assembly and CDK's log."""

    def __init__(self, base: Path, cluster: str) -> None:
        self.folder = base.absolute() / cluster
        self._file = self.folder / "touched.json"

    def read(self) -> Touched | None:
        """Return what an interrupted run has touched, None if there was none.

        Raises AcceptanceError for a file of another version.
        """
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Touched)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise AcceptanceError(
                f"Undo by hand what {self._file} names, then remove it: another version wrote it "
                f"({error})"
            ) from error

    def write(self, touched: Touched) -> None:
        """Write the file atomically, before the thing is touched."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(f".{os.getpid()}")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(touched)))
        draft.replace(self._file)

    def clear(self) -> None:
        """Forget the run: everything is undone."""
        shutil.rmtree(self.folder, ignore_errors=True)
