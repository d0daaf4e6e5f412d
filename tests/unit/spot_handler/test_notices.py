from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.common.names import INSTANCE_ID_PATTERN
from lambdas.common.text import LIMIT
from lambdas.spot_handler import notices
from lambdas.spot_handler.notices import Kind, NoticeError
from tests.support.events import EVENT_ID, INSTANCE, spot_notice

GIVEN = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC).timestamp()
NOW = GIVEN + 3


def test_the_deadline_of_a_spot_notice_is_two_minutes_after_its_time() -> None:
    notice = notices.parse(spot_notice(), now=NOW)
    assert notice is not None
    assert notice.kind is Kind.SPOT_INTERRUPTION
    assert (notice.instance, notice.event_id) == (INSTANCE, EVENT_ID)
    assert (notice.given, notice.deadline, notice.expires) == (GIVEN, GIVEN + 120, GIVEN + 120)


def test_a_late_notice_has_the_deadline_of_its_time() -> None:
    notice = notices.parse(spot_notice(), now=GIVEN + 500)
    assert notice is not None
    assert notice.deadline == GIVEN + 120


def test_the_deadline_of_a_hibernation_is_now() -> None:
    notice = notices.parse(spot_notice(action="hibernate"), now=NOW)
    assert notice is not None
    assert (notice.deadline, notice.expires) == (NOW, GIVEN + 120)


@pytest.mark.parametrize(
    "time", [None, "", "yesterday", 17, "2026-11-21T10:00:00", "2026-11-21T10:09:00Z", [], {}]
)
def test_without_a_usable_time_the_deadline_counts_from_now(time: Any) -> None:
    notice = notices.parse(spot_notice(time=time), now=NOW)
    assert notice is not None
    assert notice.deadline == NOW + 120


@pytest.mark.parametrize(
    ("source", "detail_type"),
    [
        ("aws.ec2", "EC2 Instance Rebalance Recommendation"),
        ("aws.s3", "EC2 Spot Instance Interruption Warning"),
        ("aws.ec2", "Anything"),
        ("acme.shop", "Order placed"),
    ],
)
def test_an_event_of_an_unknown_kind_is_no_notice(source: str, detail_type: str) -> None:
    event = spot_notice(source=source, detail_type=detail_type, detail="whatever")
    assert notices.parse(event, now=NOW) is None


def test_an_event_of_a_drill_source_is_a_notice() -> None:
    drill = spot_notice(source="acme.drill")
    assert notices.parse(drill, now=NOW, drill_sources={"acme.drill"}) is not None


def test_an_event_of_another_source_is_no_notice() -> None:
    foreign = spot_notice(source="acme.other")
    assert notices.parse(foreign, now=NOW, drill_sources={"acme.drill"}) is None
    assert notices.parse(foreign, now=NOW) is None


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        (spot_notice(detail={}), "instance-id"),
        (spot_notice(detail=None), "detail|object"),
        (spot_notice(detail=[]), "object"),
        (spot_notice(17), "instance-id"),
        (spot_notice("ip-10-0-0-1"), "not an instance id"),
        (spot_notice("i-0123456789abc0001/../x"), "not an instance id"),
        (spot_notice("i-0123456789abc0001\n"), "not an instance id"),
        (spot_notice(action=5), "instance-action"),
        (spot_notice(source=None), "source"),
        (spot_notice(source=3), "source"),
        (spot_notice(detail_type=None), "detail-type"),
        ("text", "object"),
        ([], "object"),
        (None, "object"),
        (7, "object"),
    ],
)
def test_a_malformed_event_is_an_error_with_its_fault(event: Any, fault: str) -> None:
    with pytest.raises(NoticeError, match=fault):
        notices.parse(event, now=NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_any_json_is_no_notice_or_a_notice_error(event: Any) -> None:
    try:
        found = notices.parse(event, now=NOW)
    except NoticeError:
        return
    assert found is None  # no random value is a notice


@given(field=st.sampled_from(["id", "time", "detail", "version", "region"]), value=JSON)
def test_any_value_of_one_field_gives_a_notice_or_a_notice_error(field: str, value: Any) -> None:
    try:
        notice = notices.parse(spot_notice() | {field: value}, now=NOW)
    except NoticeError:
        return
    assert notice is not None
    assert notice.given <= NOW
    assert re.fullmatch(INSTANCE_ID_PATTERN, notice.instance)


@pytest.mark.parametrize(
    ("state", "kind"),
    [("running", Kind.INSTANCE_RUNNING), ("pending", None), ("terminated", None)],
)
def test_only_the_state_running_is_a_notice(state: str, kind: Kind | None) -> None:
    detail = {"instance-id": INSTANCE, "state": state}
    event = spot_notice(detail_type="EC2 Instance State-change Notification", detail=detail)
    notice = notices.parse(event, now=NOW)
    assert (notice and notice.kind) == kind


@pytest.mark.parametrize(
    ("action", "returns"), [("terminate", False), ("stop", True), ("hibernate", True)]
)
def test_an_instance_may_return_after_stop_and_hibernate(action: str, *, returns: bool) -> None:
    notice = notices.parse(spot_notice(action=action), now=NOW)
    assert notice is not None
    assert notice.may_return is returns


LONG = "because " * 1500


@pytest.mark.parametrize(
    "event",
    [
        spot_notice(LONG),
        spot_notice(INSTANCE, source=[LONG]),
        spot_notice(INSTANCE, detail={"instance-id": INSTANCE, "instance-action": [LONG]}),
    ],
)
def test_long_fields_of_an_event_are_cut_in_the_error(event: Any) -> None:
    with pytest.raises(NoticeError) as caught:
        notices.parse(event, now=NOW)
    assert len(str(caught.value)) < LIMIT + 50


def test_long_fields_of_an_event_are_cut_in_the_notice() -> None:
    notice = notices.parse(spot_notice(INSTANCE, id=LONG, action=LONG), now=NOW)
    assert notice is not None
    assert len(notice.event_id) <= LIMIT
    assert len(notice.action) <= LIMIT
