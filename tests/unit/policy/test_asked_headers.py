"""`x-envoy-*` request headers, read as Envoy reads them."""

from __future__ import annotations

import threading

import pytest

from meshlib.model.durations import LONGEST
from meshlib.policy.asked import CONSUMED, Asked, asked, consumed, malformed, speaks, without


def said(**headers: str) -> dict[str, str]:
    return {f"x-envoy-{name.replace('_', '-')}": value for name, value in headers.items()}


def test_ordinary_requests_say_nothing() -> None:
    headers = [(b"Host", b"a"), (b"Accept-Encoding", b"gzip"), (b"X-Envoy", b"1"), (b"Content-Type", b"text/plain")]
    assert not speaks(headers)
    assert consumed(headers) == {}
    assert without(headers) is headers


def test_what_is_for_the_mesh_is_taken_out_whatever_its_case() -> None:
    headers = [(b"Host", b"a"), (b"X-Envoy-Max-Retries", b" 3 "), (b"x-envoy-max-retries", b"9"), (b"x-envoy-x", b"1")]
    assert speaks(headers)
    assert consumed(headers) == {"x-envoy-max-retries": "3"}
    assert without(headers) == [(b"Host", b"a"), (b"x-envoy-x", b"1")]


def test_everything_that_can_be_asked_for() -> None:
    found = asked(
        said(
            upstream_rq_timeout_ms="250",
            upstream_rq_per_try_timeout_ms="100",
            upstream_stream_duration_ms="900",
            expected_rq_timeout_ms="70",
            upstream_rq_timeout_alt_response="anything",
            hedge_on_per_try_timeout="true",
            retry_on="5xx, reset,unavailable,made-up",
            retry_grpc_on="unavailable,5xx",
            max_retries="4",
            retriable_status_codes="409, x,503",
            retriable_header_names="X-One, x-two",
        )
    )
    assert found == Asked(
        timeout=0.25,
        per_try_timeout=0.1,
        max_stream_duration=0.9,
        expected_timeout=0.07,
        alternative_response=True,
        hedge=True,
        retry_on=("5xx", "reset", "unavailable"),
        max_retries=4,
        status_codes=(409, 503),
        header_names=("x-one", "x-two"),
    )


@pytest.mark.parametrize("value", ["", "-1", "1.5", "1e3", "nan", "9" * 40, "\u0663"])
def test_a_number_that_cannot_be_read_is_not_there(value: str) -> None:
    assert asked(said(upstream_rq_timeout_ms=value, max_retries=value)) == Asked()


def test_nobody_waits_for_longer_than_a_hundred_years() -> None:
    found = asked(said(upstream_rq_timeout_ms="9" * 18, upstream_rq_per_try_timeout_ms="9" * 18))
    assert found.timeout == found.per_try_timeout == LONGEST
    assert LONGEST < threading.TIMEOUT_MAX, "and whatever waits can"


def test_strictness_is_about_the_headers_that_are_named() -> None:
    wrong = said(max_retries="many", retry_on="5xx,made-up")
    assert malformed(wrong, ()) is None
    assert malformed(wrong, ("x-envoy-retry-grpc-on",)) is None
    assert malformed(wrong, ("x-envoy-max-retries",)) == ("x-envoy-max-retries", "many")
    assert malformed(wrong, ("x-envoy-retry-on",)) == ("x-envoy-retry-on", "5xx,made-up")
    assert malformed(said(max_retries="2", retry_on="5xx"), ("x-envoy-max-retries", "x-envoy-retry-on")) is None


def test_all_of_them_are_kept_from_the_upstream() -> None:
    headers = [(name, b"1") for name in CONSUMED]
    assert without([*headers, (b"a", b"b")]) == [(b"a", b"b")]
