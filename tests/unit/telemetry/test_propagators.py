"""Which formats are read and written, in which order, and what a process without spans hands on."""

import random

import pytest

from meshlib.errors import ConfigurationError
from meshlib.model.request import RequestHead
from meshlib.telemetry.propagators import Propagation
from meshlib.telemetry.trace_parent import TraceParent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
W3C = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())
B3 = (b"b3", f"{TRACE}-{SPAN}-1".encode())
PARENT = TraceParent(int(TRACE, 16), int(SPAN, 16), True)


def head(*headers: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead("GET", "http", "payments", "/", headers)


def test_w3c_is_handed_on_as_it_came() -> None:
    state = (b"tracestate", b"a=b")
    assert Propagation().handed_on(head(W3C, state)) == (W3C, state)


def test_a_format_that_is_not_named_is_not_read() -> None:
    assert Propagation().extract(head(B3)) is None
    assert Propagation(["b3"]).extract(head(W3C)) is None
    assert Propagation(["b3"]).extract(head(B3)) == PARENT


def test_the_first_well_formed_format_counts_and_all_are_written() -> None:
    both = Propagation(["b3", "tracecontext", "b3multi"])
    assert both.extract(head((b"b3", b"nonsense"), W3C)) == PARENT
    written = dict(both.handed_on(head(W3C)))
    assert written[b"b3"] == B3[1]
    assert written[b"traceparent"] == W3C[1]
    assert written[b"x-b3-traceid"] == TRACE.encode()
    assert written[b"x-b3-sampled"] == b"1"


def test_old_trace_headers_make_room_for_new_ones_whatever_their_case() -> None:
    policy = Propagation(["tracecontext", "b3"])
    given = [(b"Traceparent", b"x"), (b"B3", b"y"), (b"accept", b"*/*"), (b"X-B3-TraceId", b"somebody's")]
    assert policy.named_in(given)
    assert policy.injected(given, PARENT) == [(b"accept", b"*/*"), (b"X-B3-TraceId", b"somebody's"), W3C, B3]


@pytest.mark.parametrize("formats", [["tracecontext"], ["b3"], ["b3multi"], ["b3", "tracecontext"], []])
def test_whatever_comes_a_request_is_served(formats: list[str]) -> None:
    policy = Propagation(formats, ["tenant"])
    rng = random.Random(7)
    names = [b"traceparent", b"tracestate", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-sampled", b"baggage"]
    for _ in range(300):
        noise = [(name, rng.randbytes(rng.randrange(80))) for name in rng.sample(names, 4)]
        for name, value in policy.handed_on(head(*noise)):
            assert name.isascii()
            assert value.isascii()
            assert b"\r" not in value
            assert b"\n" not in value


def test_baggage_passes_by_policy_only() -> None:
    given = head(W3C, (b"baggage", b"tenant=acme,secret=1"))
    assert b"baggage" not in dict(Propagation().handed_on(given))
    assert dict(Propagation(baggage=["tenant"]).handed_on(given))[b"baggage"] == b"tenant=acme"


@pytest.mark.parametrize("formats", [["tracecontext"], ["b3"], ["b3multi", "tracecontext"]])
def test_a_request_without_a_trace_has_none_to_go_on(formats: list[str]) -> None:
    """One that is made up and not recorded would keep services further on, who follow their parent, from recording."""
    assert Propagation(formats).handed_on(head()) == ()


@pytest.mark.parametrize(
    "given, environ, names",
    [
        (None, {}, ("tracecontext",)),
        (None, {"OTEL_PROPAGATORS": "b3,baggage,tracecontext"}, ("b3", "tracecontext")),
        (None, {"OTEL_PROPAGATORS": "none"}, ()),
        (["b3multi"], {"OTEL_PROPAGATORS": "b3"}, ("b3multi",)),
    ],
)
def test_propagators_come_from_code_then_from_the_environment(given, environ, names) -> None:
    assert Propagation.from_environment(given, (), environ).names == names


def test_an_unknown_propagator_is_an_error_in_code_and_a_warning_in_the_environment(caplog) -> None:
    with pytest.raises(ConfigurationError, match="jaeger"):
        Propagation(["jaeger"])
    assert Propagation.from_environment(None, (), {"OTEL_PROPAGATORS": "jaeger,b3"}).names == ("b3",)
    assert "jaeger" in caplog.text
