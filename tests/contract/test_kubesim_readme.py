"""The examples of kubesim's README run and print the expected output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kubesim

README = Path(kubesim.__file__).with_name("README.md")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
PRINTED = ["gone after 20 s of virtual time\n", "['node-1']\n", "[429, 200]\n"]


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == len(PRINTED)


@pytest.mark.parametrize(("example", "printed"), list(zip(EXAMPLES, PRINTED, strict=False)))
def test_an_example_runs(example: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example, str(README), "exec"), {"__name__": "example"})  # noqa: S102

    assert capsys.readouterr().out == printed
