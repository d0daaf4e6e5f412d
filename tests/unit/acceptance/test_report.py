"""The report's text."""

from __future__ import annotations

from acceptance.checks import Check
from acceptance.report import Report

HIDDEN = {"arn:aws:iam::111122223333:user/jane": "IDENTITY", "111122223333": "ACCOUNT"}


def test_a_report_hides_the_account_and_who_ran_it() -> None:
    report = Report(HIDDEN, facts={"cluster": "prod"}, checks=[Check("cordon", True, "1 s")])
    report.result = {"function_arn": "arn:aws:lambda:eu-west-1:111122223333:function:x"}
    text = report.markdown(["as arn:aws:iam::111122223333:user/jane", "account 111122223333"])
    assert text.startswith("# Acceptance: passed\n")
    assert "as IDENTITY\naccount ACCOUNT\n" in text
    assert "111122223333" not in text
    assert "jane" not in text
    assert "| cordon | passed | 1 s |" in text


def test_a_failed_check_fails_the_report() -> None:
    report = Report(HIDDEN, checks=[Check("a|b", False, "x|y"), Check("c", None, "z")])
    text = report.markdown([])
    assert text.startswith("# Acceptance: FAILED\n")
    assert "| a/b | FAILED | x/y |" in text
    assert "| c | remark | z |" in text


def test_an_early_end_and_what_is_left_fail_the_report() -> None:
    passed = [Check("cordon", True, "1 s")]
    early = Report(HIDDEN, checks=passed, errors=["no result\nsecond line"])
    assert early.markdown([]).startswith("# Acceptance: FAILED\n")
    assert "no result\nsecond line\n" in early.markdown([])
    left = Report(HIDDEN, checks=passed, by_hand=["Delete the stack"])
    assert left.markdown([]).startswith("# Acceptance: FAILED\n")
    assert "- Delete the stack\n" in left.markdown([])
