"""What an attempt's end means, in Envoy's terms."""

import pytest

from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import CONDITION_WORDS, classify


def words(outcome: Outcome) -> set[str]:
    found = classify(outcome)
    return {word for word in CONDITION_WORDS if found.satisfies(word)}


@pytest.mark.parametrize(
    "status,expected",
    [
        (200, set()),
        (302, set()),
        (404, set()),
        (409, {"retriable-4xx"}),
        (429, set()),
        (500, {"5xx"}),
        (501, {"5xx"}),
        (502, {"5xx", "gateway-error"}),
        (503, {"5xx", "gateway-error"}),
        (504, {"5xx", "gateway-error"}),
        (505, {"5xx"}),
        (599, {"5xx"}),
        (600, set()),
    ],
)
def test_the_retry_conditions_of_a_status(status: int, expected: set[str]) -> None:
    assert words(Outcome(status)) == expected


def test_a_response_below_500_is_a_success_and_one_above_counts_as_5xx() -> None:
    for status in (100, 200, 404, 429, 499):
        found = classify(Outcome(status))
        assert (found.success, found.counts_as_5xx, found.neutral, found.flag) == (True, False, False, None)
    for status in (500, 503, 599):
        found = classify(Outcome(status))
        assert (found.success, found.counts_as_5xx, found.local_origin) == (False, True, False)


RESET = {"reset", "5xx", "gateway-error"}


@pytest.mark.parametrize(
    "failure,sent,expected,flag",
    [
        (Failure.CONNECT, True, RESET | {"connect-failure", "reset-before-request"}, "UF"),
        (Failure.CONNECT_TIMEOUT, False, RESET | {"connect-failure", "reset-before-request"}, "UF"),
        (Failure.RESET_BEFORE_REQUEST, True, RESET | {"reset-before-request"}, "UC"),
        (Failure.RESET, True, RESET, "UC"),
        (Failure.RESET, False, RESET | {"reset-before-request"}, "UC"),
        (Failure.REFUSED_STREAM, True, RESET | {"refused-stream"}, "UR"),
        (Failure.PROTOCOL, True, RESET, "UPE"),
        (Failure.PER_TRY_TIMEOUT, True, RESET, "UT"),
        (Failure.PER_TRY_TIMEOUT, False, RESET | {"reset-before-request"}, "UT"),
        (Failure.TIMEOUT, True, set(), "UT"),
        (Failure.TIMEOUT, False, set(), "UT"),
        (Failure.OVERFLOW, False, set(), "UO"),
        (Failure.LOCAL, False, set(), "DC"),
        (Failure.NESTED, True, set(), "LR"),
    ],
)
def test_the_retry_conditions_of_a_failure(failure: Failure, sent: bool, expected: set[str], flag: str) -> None:
    outcome = Outcome(failure=failure, request_sent=sent)
    assert words(outcome) == expected
    assert classify(outcome).flag == ResponseFlag(flag)


def test_every_failure_is_classified() -> None:
    for failure in Failure:
        assert not classify(Outcome(failure=failure)).success


def test_local_origin_failures_count_as_5xx_but_overflow_and_the_callers_own_end_say_nothing() -> None:
    neutral = {Failure.OVERFLOW, Failure.POOL_TIMEOUT, Failure.LOCAL, Failure.NESTED}
    for failure in Failure:
        found = classify(Outcome(failure=failure))
        counted = failure not in neutral
        assert (found.counts_as_5xx, found.local_origin, found.neutral) == (counted, counted, not counted)


@pytest.mark.parametrize(
    "code,word,mapped",
    [
        (1, "cancelled", 499),
        (4, "deadline-exceeded", 504),
        (8, "resource-exhausted", 429),
        (13, "internal", 500),
        (14, "unavailable", 503),
    ],
)
def test_a_grpc_status_is_a_condition_of_its_own_and_counts_as_the_http_status_it_maps_to(
    code: int, word: str, mapped: int
) -> None:
    outcome = Outcome(200, grpc_status=code)
    assert words(outcome) == {word}
    found = classify(outcome)
    assert (found.status, found.counts_as_5xx) == (mapped, mapped >= 500)


def test_grpc_ok_and_refusals_are_successes_and_codes_nobody_knows_are_500() -> None:
    assert classify(Outcome(200, grpc_status=0)).success
    assert classify(Outcome(200, grpc_status=7)).success  # permission denied: 403
    assert classify(Outcome(200, grpc_status=99)).status == 500
    assert classify(Outcome(503, grpc_status=14)).satisfies("gateway-error")


def test_the_common_outcomes_share_one_classification() -> None:
    assert classify(Outcome(200)) is classify(Outcome(200))
    assert classify(Outcome(failure=Failure.RESET)) is classify(Outcome(failure=Failure.RESET))
    assert classify(Outcome(200, grpc_status=0)) is classify(Outcome(200, grpc_status=0))


def test_an_outcome_that_says_nothing_is_the_adapters_mistake() -> None:
    with pytest.raises(ValueError, match="neither"):
        classify(Outcome())
