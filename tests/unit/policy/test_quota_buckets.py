"""Quota buckets: assignments, their end, fallbacks, reports; and what is said of them on the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from envoy.service.rate_limit_quota.v3 import rlqs_pb2
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.filters import TokenBucket
from meshlib.model.protobuf_wire import MalformedMessageError
from meshlib.model.rate_limit_quota import BucketSettings, QuotaStrategy, RequestsPerTimeUnit
from meshlib.policy import quota
from meshlib.policy.quota import Assignment, QuotaBook, QuotaBucket, Usage
from meshlib.policy.quota_wire import assignments, usage_reports

ID = (("name", "users"),)
SETTINGS = BucketSettings((("name", "users"),), reporting_interval=5.0)


def bucket(**options: Any) -> QuotaBucket:
    return QuotaBucket(ID, replace(SETTINGS, **options), 0.0)


def taken(of: QuotaBucket, now: float, count: int = 5) -> int:
    return sum(of.take(now) for _ in range(count))


@pytest.mark.parametrize(
    "strategy,allowed",
    [
        ("ALLOW_ALL", 5),
        ("DENY_ALL", 0),
        (RequestsPerTimeUnit(2, 60), 2),
        (RequestsPerTimeUnit(0, 60), 0),
        (TokenBucket(3, 1, 60.0), 3),
    ],
)
def test_strategies(strategy: QuotaStrategy, allowed: int) -> None:
    assert taken(bucket(no_assignment=strategy), 1.0) == allowed
    assigned = bucket(no_assignment="DENY_ALL")
    assigned.assign(Assignment(ID, strategy), 1.0)
    assert taken(assigned, 1.0) == allowed


def test_requests_per_time_unit_come_back_evenly() -> None:
    assigned = bucket()
    assigned.assign(Assignment(ID, RequestsPerTimeUnit(60, 60)), 0.0)
    assert taken(assigned, 0.0, 100) == 60
    assert taken(assigned, 10.0, 100) == 10


@pytest.mark.parametrize(
    "expired,timeout,at_11,at_31",
    [
        (None, None, 5, 5),
        ("reuse", None, 0, 0),
        ("reuse", 20.0, 0, 5),
        ("ALLOW_ALL", 20.0, 5, 5),
        (RequestsPerTimeUnit(1, 86400), 20.0, 1, 5),
        ("reuse", 0.0, 5, 5),
    ],
)
def test_an_assignment_expires(expired: Any, timeout: float | None, at_11: int, at_31: int) -> None:
    """It denies everything for ten seconds; without it everything passes."""
    assigned = bucket(expired=expired, expired_timeout=timeout)
    assigned.assign(Assignment(ID, "DENY_ALL", 10.0), 0.0)
    assert taken(assigned, 9.9) == 0
    assert taken(assigned, 11.0) == at_11
    assert taken(assigned, 31.0) == at_31


def test_a_new_assignment_of_the_same_strategy_gives_no_new_tokens() -> None:
    assigned = bucket()
    assigned.assign(Assignment(ID, TokenBucket(3, 3, 3600.0), 10.0), 0.0)
    assert taken(assigned, 1.0) == 3
    assigned.assign(Assignment(ID, TokenBucket(3, 3, 3600.0), 10.0), 5.0)
    assert taken(assigned, 12.0) == 0
    assigned.assign(Assignment(ID, TokenBucket(4, 4, 3600.0), 10.0), 12.0)
    assert taken(assigned, 12.0) == 4


def test_reports_are_of_what_was_since_the_last() -> None:
    of = bucket(no_assignment=RequestsPerTimeUnit(3, 86400))
    taken(of, 1.0)
    assert of.report(2.0) == Usage(ID, 2.0, 3, 2)
    assert of.next_report == 7.0
    taken(of, 3.0, 1)
    assert of.report(7.0) == Usage(ID, 5.0, 0, 1)
    assert of.report(12.0) == Usage(ID, 5.0, 0, 0)


def test_a_book_tells_of_new_buckets_and_when_reports_are_due() -> None:
    heard: list[int] = []
    book = QuotaBook("shop", lambda: heard.append(1))
    assert book.next_report() is None
    first = book.bucket(ID, SETTINGS, 1.0)
    assert book.bucket(ID, SETTINGS, 2.0) is first
    other = (("name", "others"),)
    book.bucket(other, replace(SETTINGS, reporting_interval=1.0), 2.0)
    assert (len(heard), book.next_report()) == (2, 1.0)
    assert [usage.bucket for usage in book.reports(2.0)] == [ID, other]
    assert book.next_report() == 3.0
    assert [usage.bucket for usage in book.reports(3.0)] == [other]
    assert [usage.bucket for usage in book.reports(3.0, anew=True)] == [ID, other]


def test_a_bucket_that_is_abandoned_is_forgotten() -> None:
    book = QuotaBook("shop", lambda: None)
    first = book.bucket(ID, SETTINGS, 1.0)
    book.assign([Assignment(ID, "DENY_ALL"), Assignment((("no", "such"),), "DENY_ALL")], 1.0)
    assert not first.take(1.0)
    book.assign([Assignment(ID, None)], 2.0)
    assert len(book) == 0
    assert book.bucket(ID, SETTINGS, 3.0).take(3.0)


def test_callers_cannot_make_buckets_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_BUCKETS", 3)
    book = QuotaBook("shop", lambda: None)
    kept = [
        book.bucket((("user", str(number)),), replace(SETTINGS, no_assignment="DENY_ALL"), 0.0) for number in range(9)
    ]
    assert len(book) == 3
    assert not any(each.take(0.0) for each in kept)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 5)),
        st.tuples(st.just("wait"), st.integers(0, 20)),
        st.tuples(st.just("assign"), st.sampled_from(["ALLOW_ALL", "DENY_ALL", None]), st.none() | st.integers(0, 15)),
        st.tuples(st.just("report")),
    ),
    max_size=30,
)


@given(steps=STEPS, expired=st.sampled_from([None, "reuse", "DENY_ALL"]), timeout=st.none() | st.integers(0, 15))
def test_the_state_machine(steps: list[Any], expired: Any, timeout: int | None) -> None:
    """Against a plain telling of the rules, second by second; and every request is reported once."""
    of = bucket(expired=expired, expired_timeout=timeout)
    now, given_at, rule, lives, allowed, denied, told = 0, 0, None, None, 0, 0, [0, 0]
    for step in steps:
        if step[0] == "wait":
            now += step[1]
        elif step[0] == "report":
            usage = of.report(float(now))
            told = [told[0] + usage.allowed, told[1] + usage.denied]
        elif step[0] == "assign":
            of.assign(Assignment(ID, step[1], step[2]), float(now))
            given_at, rule, lives = now, step[1], step[2]
        else:
            says = rule
            if rule is not None and lives is not None and now >= given_at + lives:
                over = expired is None or (timeout is not None and now >= given_at + lives + timeout)
                says = None if over else rule if expired == "reuse" else expired
                rule = None if over else rule
            passes = says in (None, "ALLOW_ALL")
            assert taken(of, float(now), step[1]) == (step[1] if passes else 0)
            allowed, denied = (allowed + step[1], denied) if passes else (allowed, denied + step[1])
    usage = of.report(float(now))
    assert [told[0] + usage.allowed, told[1] + usage.denied] == [allowed, denied]


# --------------------------------------------------------------------------------------------------------------- wire


def test_reports_on_the_wire() -> None:
    data = usage_reports("shop", [Usage((("a", "1"), ("b", "gr\xc3\xbc\xc3\x9fe")), 2.5, 3, 0)])
    message = rlqs_pb2.RateLimitQuotaUsageReports.FromString(data)
    assert message.domain == "shop"
    usage = message.bucket_quota_usages[0]
    assert dict(usage.bucket_id.bucket) == {"a": "1", "b": "grüße"}
    assert (usage.time_elapsed.seconds, usage.time_elapsed.nanos) == (2, 500_000_000)
    assert (usage.num_requests_allowed, usage.num_requests_denied) == (3, 0)


@pytest.mark.parametrize(
    "action,expected",
    [
        ({"abandon_action": {}}, Assignment(ID, None)),
        ({"quota_assignment_action": {}}, Assignment(ID)),
        (
            {
                "quota_assignment_action": {
                    "assignment_time_to_live": "1.5s",
                    "rate_limit_strategy": {"blanket_rule": "DENY_ALL"},
                }
            },
            Assignment(ID, "DENY_ALL", 1.5),
        ),
        (
            {"quota_assignment_action": {"assignment_time_to_live": "0s", "rate_limit_strategy": {}}},
            Assignment(ID, "ALLOW_ALL", 0.0),
        ),
        (
            {
                "quota_assignment_action": {
                    "rate_limit_strategy": {
                        "requests_per_time_unit": {"requests_per_time_unit": "5", "time_unit": "HOUR"}
                    }
                }
            },
            Assignment(ID, RequestsPerTimeUnit(5, 3600)),
        ),
        (
            {
                "quota_assignment_action": {
                    "rate_limit_strategy": {
                        "token_bucket": {"max_tokens": 7, "tokens_per_fill": 2, "fill_interval": "0.5s"}
                    }
                }
            },
            Assignment(ID, TokenBucket(7, 2, 0.5)),
        ),
    ],
)
def test_assignments_on_the_wire(action: dict[str, Any], expected: Assignment) -> None:
    said = {"bucket_action": [{"bucket_id": {"bucket": dict(ID)}, **action}]}
    message = json_format.ParseDict(said, rlqs_pb2.RateLimitQuotaResponse())
    assert list(assignments(message.SerializeToString())) == [expected]


def test_a_name_comes_back_as_it_went() -> None:
    """Header values are bytes, as text character by character; on the wire they are UTF-8."""
    name = (("user", "gr\xc3\xbc\xc3\x9fe"),)
    told = rlqs_pb2.RateLimitQuotaUsageReports.FromString(usage_reports("d", [Usage(name, 0.0, 1, 0)]))
    response = rlqs_pb2.RateLimitQuotaResponse()
    response.bucket_action.add().bucket_id.CopyFrom(told.bucket_quota_usages[0].bucket_id)
    response.bucket_action[0].abandon_action.SetInParent()
    assert [found.bucket for found in assignments(response.SerializeToString())] == [name]


@given(st.binary(max_size=80))
def test_any_bytes_are_assignments_or_malformed(data: bytes) -> None:
    try:
        found = list(assignments(data))
    except MalformedMessageError:
        return
    for each in found:
        fresh = bucket()
        fresh.assign(each, 0.0)
        fresh.take(1.0)
