"""Which outcomes a retry policy retries, as Envoy 1.40 does."""

import pytest

from meshlib.model.outcome import Failure, Outcome
from meshlib.model.route import RetryPolicy
from meshlib.policy.classify import classify
from meshlib.policy.retry import compile_retry


def reason(retry_on: str, outcome: Outcome, codes: tuple[int, ...] = ()) -> str | None:
    rules = compile_retry(RetryPolicy((retry_on,) if retry_on else (), retriable_status_codes=codes))
    assert rules is not None
    return rules.reason(outcome, classify(outcome))


def response(status: int, **headers: str) -> Outcome:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Outcome(status, pairs)


@pytest.mark.parametrize(
    "retry_on,outcome,expected",
    [
        ("5xx", response(503), "5xx"),
        ("5xx", response(404), None),
        ("gateway-error", response(500), None),
        ("gateway-error", response(502), "gateway-error"),
        ("gateway-error,5xx", response(502), "5xx"),
        ("retriable-4xx", response(409), "retriable-4xx"),
        ("retriable-4xx", response(400), None),
        ("5xx", Outcome(failure=Failure.CONNECT), "5xx"),
        ("5xx", Outcome(failure=Failure.REFUSED_STREAM), "5xx"),
        ("5xx", Outcome(failure=Failure.PER_TRY_TIMEOUT), "5xx"),
        ("5xx", Outcome(failure=Failure.TIMEOUT), None),
        ("5xx,reset,connect-failure", Outcome(failure=Failure.OVERFLOW), None),
        ("5xx,reset", Outcome(failure=Failure.LOCAL), None),
        ("reset", Outcome(failure=Failure.RESET), "reset"),
        ("reset", response(503), None),
        ("connect-failure", Outcome(failure=Failure.CONNECT_TIMEOUT), "connect-failure"),
        ("connect-failure", Outcome(failure=Failure.RESET), None),
        ("refused-stream", Outcome(failure=Failure.REFUSED_STREAM), "refused-stream"),
        ("reset-before-request", Outcome(failure=Failure.RESET), None),
        ("reset-before-request", Outcome(failure=Failure.RESET, request_sent=False), "reset-before-request"),
        ("reset-before-request", Outcome(failure=Failure.CONNECT), "reset-before-request"),
        ("reset-before-request,reset,5xx", Outcome(failure=Failure.RESET_BEFORE_REQUEST), "reset-before-request"),
        ("connect-failure,reset,5xx", Outcome(failure=Failure.CONNECT), "connect-failure"),
        ("unavailable", Outcome(200, grpc_status=14), "unavailable"),
        ("cancelled", Outcome(200, grpc_status=14), None),
        ("unavailable", response(200, grpc_status="14"), "unavailable"),
        ("unavailable", response(200, grpc_status="14 "), None),
        ("unavailable", response(503), None),
        ("", response(503), None),
    ],
)
def test_the_condition_that_fires(retry_on: str, outcome: Outcome, expected: str | None) -> None:
    assert reason(retry_on, outcome) == expected


def test_retriable_status_codes_need_both_the_word_and_the_list() -> None:
    assert reason("retriable-status-codes", response(418), (418, 503)) == "retriable-status-codes"
    assert reason("retriable-status-codes", response(200), (418,)) is None
    assert reason("5xx", response(418), (418,)) is None
    assert reason("retriable-status-codes", Outcome(failure=Failure.CONNECT), (503,)) is None


def test_a_rate_limited_response_is_retried_only_where_that_was_asked_for() -> None:
    limited = response(503, x_envoy_ratelimited="true")
    assert reason("5xx", limited) is None
    assert reason("5xx,envoy-ratelimited", limited) == "envoy-ratelimited"
    assert reason("envoy-ratelimited", response(200, x_envoy_ratelimited="true")) == "envoy-ratelimited"
    assert reason("envoy-ratelimited", response(503)) is None


def test_an_overloaded_response_is_retried_like_any_other() -> None:
    # Held against Envoy 1.40: three attempts with num_retries 2. Only Envoys before 1.14 gave up on this header.
    assert reason("5xx", response(503, x_envoy_overloaded="true")) == "5xx"


def test_unknown_words_are_reported_and_never_fire() -> None:
    rules = compile_retry(RetryPolicy(("5xx, bogus", " ", "http3-post-connect-failure")))
    assert rules is not None
    assert rules.unknown == ("bogus", "http3-post-connect-failure")
    outcome = response(503)
    assert rules.reason(outcome, classify(outcome)) == "5xx"


def test_a_policy_is_carried_over_whole_even_when_it_retries_nothing() -> None:
    assert compile_retry(None) is None
    rules = compile_retry(RetryPolicy((), 7, 0.25, 0.5, (), 0.1, 0.9, True, 3))
    assert rules is not None
    assert (rules.num_retries, rules.per_try_timeout, rules.per_try_idle_timeout) == (7, 0.25, 0.5)
    assert (rules.base_interval, rules.max_interval) == (0.1, 0.9)
    assert (rules.previous_hosts, rules.host_selection_retry_max_attempts) == (True, 3)
