"""The spot handler's page names every field, outcome and CAST AI state of the result."""

from __future__ import annotations

import json
import re

from lambdas.spot_handler import notices
from lambdas.spot_handler.result import CastaiState, Outcome
from tests.support import pages
from tests.support.pages import ROOT
from tests.unit.docs.test_operations import result

PAGE = ROOT / "docs" / "spot-handler.md"


def fields() -> set[str]:
    """The fields in the table of the section on the result."""
    return {
        name
        for row in pages.rows(pages.section(PAGE, "Result"))
        for name in re.findall(r"`([\w.]+)`", row[0])
    }


def test_every_field_of_the_result_is_explained() -> None:
    whole = result()
    whole.plan, whole.castai_reason = [], "why"
    shape = whole.as_dict()
    flat = {key for key in shape if key != "pods"} | {f"pods.{key}" for key in shape["pods"]}
    assert fields() == flat


def test_the_sample_is_a_result() -> None:
    (block,) = pages.blocks(PAGE, "json")
    sample = json.loads(block.text)
    assert set(sample) <= set(result().as_dict())
    assert set(sample["pods"]) == set(result().as_dict()["pods"])
    assert sample["outcome"] in list(Outcome)
    assert len(sample["left"]) == sample["pods"]["left"]
    assert sum(sample["skipped"].values()) == sample["pods"]["skipped"]


def test_every_outcome_is_explained() -> None:
    said = {row[0].strip("`") for row in pages.rows(pages.section(PAGE, "Outcomes"))}
    assert said == set(Outcome)


def test_every_castai_state_is_named() -> None:
    assert all(f"`{state}`" in pages.section(PAGE, "Result") for state in CastaiState)


def test_the_age_at_which_a_notice_expires_is_named() -> None:
    assert f"more than {notices.NOTICE_PERIOD} s old" in PAGE.read_text()
