"""B3 in both forms: what is understood, what counts as none, and what is written."""

import pytest

from meshlib.telemetry.b3 import parse_multi, parse_single, render_multi, render_single
from meshlib.telemetry.trace_parent import TraceParent

TRACE, SPAN, SHORT = "80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1", "64fe8b2a57d3eff7"
TRACE_ID, SPAN_ID, SHORT_ID = int(TRACE, 16), int(SPAN, 16), int(SHORT, 16)


@pytest.mark.parametrize(
    "value, parent",
    [
        (f"{TRACE}-{SPAN}-1", TraceParent(TRACE_ID, SPAN_ID, True)),
        (f"{TRACE}-{SPAN}-0", TraceParent(TRACE_ID, SPAN_ID, False)),
        (f"{TRACE}-{SPAN}-d", TraceParent(TRACE_ID, SPAN_ID, True)),
        (f"{TRACE}-{SPAN}", TraceParent(TRACE_ID, SPAN_ID, None)),
        (f"{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90", TraceParent(TRACE_ID, SPAN_ID, True)),
        (f"{SHORT}-{SPAN}-1", TraceParent(SHORT_ID, SPAN_ID, True)),
        (f"{TRACE.upper()}-{SPAN}-1", TraceParent(TRACE_ID, SPAN_ID, True)),
    ],
)
def test_one_header_names_the_callers_span(value: str, parent: TraceParent) -> None:
    assert parse_single(value) == parent


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "0",
        "1",
        "d",
        "-",
        "---",
        TRACE,
        f"{TRACE}-{SPAN}-2",
        f"{TRACE}-{SPAN}-",
        f"{TRACE}-{SPAN}-1-xyz",
        f"{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90-1",
        f"{TRACE[:-1]}-{SPAN}-1",
        f"{TRACE}-{SPAN[:-1]}-1",
        f"{TRACE}-{'g' * 16}-1",
        f"{'0' * 32}-{SPAN}-1",
        f"{TRACE}-{'0' * 16}-1",
        f"{TRACE}-{SPAN}-1,{TRACE}-{SPAN}-1",
        "é" * 40,
        "1" * 100_000,
    ],
)
def test_a_malformed_header_is_none(value: str | None) -> None:
    assert parse_single(value) is None


@pytest.mark.parametrize(
    "sampled, flags, decision",
    [
        ("1", None, True),
        ("0", None, False),
        ("true", None, True),
        ("false", None, False),
        (None, None, None),
        ("0", "1", True),
        ("perhaps", None, None),
        ("1", "nonsense", True),
    ],
)
def test_several_headers_name_it_too(sampled: str | None, flags: str | None, decision: bool | None) -> None:
    assert parse_multi(TRACE, SPAN, sampled, flags) == TraceParent(TRACE_ID, SPAN_ID, decision)


@pytest.mark.parametrize(
    "trace, span", [(None, SPAN), (TRACE, None), ("", SPAN), (TRACE, "0"), ("0" * 16, SPAN), (f"{TRACE},{TRACE}", SPAN)]
)
def test_several_headers_of_which_one_is_bad_are_none(trace: str | None, span: str | None) -> None:
    assert parse_multi(trace, span, "1", None) is None


@pytest.mark.parametrize("sampled", [True, False, None])
def test_what_is_written_is_understood(sampled: bool | None) -> None:
    parent = TraceParent(SHORT_ID, 7, sampled)
    (single,) = render_single(parent)
    assert single[0] == b"b3"
    assert parse_single(single[1].decode()) == parent
    several = {name.decode(): value.decode() for name, value in render_multi(parent)}
    assert parse_multi(several["x-b3-traceid"], several["x-b3-spanid"], several.get("x-b3-sampled"), None) == parent
