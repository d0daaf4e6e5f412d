"""requirements.txt has every package that `cdk deploy` and `castai-eks` import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Hides the packages of the environment that are not in the lock.
ONLY_THE_LOCK = """
import importlib, re, sys
from importlib.metadata import packages_distributions

def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()

lock, module = sys.argv[1:]
locked = {canonical(name) for name in re.findall(r"(?m)^([\\w.-]+)==", open(lock).read())}
locked.add("castai-eks-cdk")  # the project itself, as `make setup` installs it
missing = {
    package
    for package, distributions in packages_distributions().items()
    if not locked & set(map(canonical, distributions))
}

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing)
importlib.import_module(module)
"""


@pytest.mark.parametrize("module", ["app", "stacks.settings", "cli.main"])
def test_a_module_imports_with_the_packages_of_the_lock_only(module: str) -> None:
    done = subprocess.run(  # noqa: S603 - this interpreter with the script above
        [sys.executable, "-c", ONLY_THE_LOCK, str(ROOT / "requirements.txt"), module],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.splitlines()[-1]
