from __future__ import annotations

import pytest

from lambdas.common import retry
from lambdas.common.errors import AwsRefusedError, AwsUnavailableError
from tests.support.fake_time import FakeTime


def test_delays_grow_and_the_last_one_repeats() -> None:
    for number, longest in enumerate([0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0]):
        assert longest / 2 <= retry.delay(number) <= longest


def test_delays_are_random_so_that_functions_do_not_retry_at_the_same_time() -> None:
    assert len({retry.delay(2) for _ in range(100)}) > 90
    assert len({retry.delay(2, retry_after=1.0) for _ in range(100)}) > 90


def test_retry_after_is_followed_up_to_a_limit() -> None:
    for _ in range(100):
        assert 1.0 <= retry.delay(0, retry_after=1.0) <= 1.1
        cap = retry.DEFAULT.longest_retry_after
        assert cap <= retry.delay(0, retry_after=10.0) <= cap + 0.1
        assert 1.5 <= retry.delay(5, retry_after=0.0) <= 3.0


def test_a_retryable_error_is_retried() -> None:
    time = FakeTime()
    answers: list[Exception | str] = [AwsUnavailableError("a"), AwsUnavailableError("b"), "done"]

    def action() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retry.call(action, until=120, clock=time.clock) == "done"
    assert 0.15 <= time.now <= 0.3


def test_the_error_is_raised_when_the_time_is_used_up() -> None:
    time = FakeTime()

    def action() -> str:
        raise AwsUnavailableError("throttled")

    with pytest.raises(AwsUnavailableError):
        retry.call(action, until=10, clock=time.clock)
    assert 5 < time.now < 10


def test_a_permanent_error_is_raised_without_a_retry() -> None:
    time = FakeTime()

    def action() -> str:
        raise AwsRefusedError("no", code="AccessDenied")

    with pytest.raises(AwsRefusedError):
        retry.call(action, until=10, clock=time.clock)
    assert time.now == 0
