"""What of a stranger's trace headers and request ids is handed on, and what is made instead."""

import random
import uuid

import pytest

from meshlib.telemetry.propagation import (
    new_request_id,
    trace_headers,
    valid_request_id,
    valid_traceparent,
    valid_tracestate,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01"

TRACEPARENTS = [
    (GOOD, True),
    (f"00-{TRACE}-{PARENT}-00", True),
    (f"00-{TRACE}-{PARENT}-ff", True),
    (f"01-{TRACE}-{PARENT}-01", True),
    (f"01-{TRACE}-{PARENT}-01-more-fields", True),
    (f"cc-{TRACE}-{PARENT}-01-", True),
    (f"01-{TRACE}-{PARENT}-01-\r\nx-admin: 1", False),
    (f"01-{TRACE}-{PARENT}-01-\n", False),
    (f"01-{TRACE}-{PARENT}-01-\xff", False),
    (f"01-{TRACE}-{PARENT}-01-{'f' * 512}", False),
    (f"00-{TRACE}-{PARENT}-01-more", False),
    (f"00-{TRACE}-{PARENT}-01-", False),
    (f"01-{TRACE}-{PARENT}-01more", False),
    (f"ff-{TRACE}-{PARENT}-01", False),
    (f"0-{TRACE}-{PARENT}-01", False),
    (f"000-{TRACE}-{PARENT}-01", False),
    (f"00-{TRACE[:-1]}-{PARENT}-01", False),
    (f"00-{TRACE}0-{PARENT}-01", False),
    (f"00-{TRACE}-{PARENT[:-1]}-01", False),
    (f"00-{TRACE}-{PARENT}-1", False),
    (f"00-{'0' * 32}-{PARENT}-01", False),
    (f"00-{TRACE}-{'0' * 16}-01", False),
    (f"00-{TRACE.upper()}-{PARENT}-01", False),
    (f"00-{TRACE[:-1]}g-{PARENT}-01", False),
    (f"00-{TRACE}-{PARENT}-0x", False),
    (f"00-{TRACE}-{PARENT}", False),
    (f"00_{TRACE}_{PARENT}_01", False),
    (f" {GOOD}", False),
    (f"{GOOD} ", False),
    (f"{GOOD},{GOOD}", False),
    ("٠٠" + GOOD[2:], False),
    ("-", False),
    ("---", False),
    ("", False),
]


@pytest.mark.parametrize("value, holds", TRACEPARENTS)
def test_traceparents(value: str, holds: bool) -> None:
    assert valid_traceparent(value) is holds


@pytest.mark.parametrize(
    "value, holds",
    [("a=b", True), ("a=b,c=d", True), ("x" * 512, True), ("x" * 513, False), ("", False), ("a=é", False)]
    + [(f"a={control}", False) for control in "\r\n\t\x00\x7f"],
)
def test_tracestates(value: str, holds: bool) -> None:
    assert valid_tracestate(value) is holds


@pytest.mark.parametrize(
    "value, holds",
    [("a", True), (str(uuid.UUID(int=7)), True), ("x" * 128, True), ("x" * 129, False), ("", False), ("a b", False)]
    + [(f"a{bad}", False) for bad in "\r\n\t\x00é☃"],
)
def test_request_ids(value: str, holds: bool) -> None:
    assert valid_request_id(value) is holds


def test_what_is_made_is_valid_and_never_the_same() -> None:
    rng = random.Random(7)
    ids = [new_request_id(rng) for _ in range(200)]
    assert {uuid.UUID(request_id).version for request_id in ids} == {4}
    assert {uuid.UUID(request_id).variant for request_id in ids} == {uuid.RFC_4122}
    assert len(set(ids)) == 200


@pytest.mark.parametrize(
    "traceparent, tracestate, handed_on",
    [
        (GOOD, None, {b"traceparent": GOOD.encode()}),
        (GOOD, "a=b", {b"traceparent": GOOD.encode(), b"tracestate": b"a=b"}),
        (GOOD, "a=é", {b"traceparent": GOOD.encode()}),
        (GOOD, "", {b"traceparent": GOOD.encode()}),
    ],
)
def test_a_good_trace_goes_on_as_it_came(traceparent: str, tracestate: str | None, handed_on: object) -> None:
    assert dict(trace_headers(traceparent, tracestate)) == handed_on


@pytest.mark.parametrize("traceparent", [None, *(value for value, holds in TRACEPARENTS if not holds)])
def test_a_bad_trace_is_none_and_its_state_belongs_to_nothing(traceparent: str | None) -> None:
    assert trace_headers(traceparent, "a=b") == ()
