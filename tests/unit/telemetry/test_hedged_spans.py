"""The spans of attempts that overlap: each its own, with its own headers, however it ends."""

from __future__ import annotations

from meshlib.engine.commands import Cancel, Commit, Discard, Launch, Listen, Start, abandon
from meshlib.engine.runtime import Runtime
from meshlib.model.outcome import Outcome
from meshlib.model.retry import RetryPolicy
from meshlib.sources.static import static_snapshot
from meshlib.telemetry.otel.tracing import OtelTracing
from meshlib.telemetry.propagators import Propagation
from parts.flow import ADDRESSES, Player, at_time, get, runtime_of
from parts.spans import Spans, header, id_of, parent_of

HEDGE = (b"x-envoy-hedge-on-per-try-timeout", b"true")
RETRY = RetryPolicy(("5xx",), num_retries=1, per_try_timeout=1.0)


def traced(spans: Spans) -> Runtime:
    runtime = runtime_of(static_snapshot({"payments": ADDRESSES}, retries=RETRY))
    runtime.tracing = OtelTracing(Propagation(), spans.provider)
    return runtime


def hedged(spans: Spans) -> tuple[Player, list[Start]]:
    """A call whose first attempt was slow, so that two are under way."""
    player = Player(traced(spans), get("payments", "/", HEDGE))
    starts = []
    for now in (0.0, 1.0, 1.1):  # begun, slow, and after the back-off
        while isinstance(player.last, Launch):
            starts.append(player.last.start)
            player.send(now)
        if len(starts) < 2:
            player.send(now + 1.0 if now == 0.0 else 1.1)
    assert isinstance(player.last, Listen)
    assert len(starts) == 2
    return player, starts


def told(start: Start) -> str:
    return next(value.decode() for name, value in start.head.headers if name == b"traceparent")


def test_the_winner_lasts_with_its_body_and_the_loser_is_cancelled() -> None:
    spans = Spans()
    player, starts = hedged(spans)
    player.send((starts[1], at_time(Outcome(200, []), 1.5)))
    assert isinstance(player.last, Cancel)
    player.send(1.6)
    assert isinstance(player.last, Commit)
    player.body_ends(2.0)
    loser, winner = sorted(
        spans.of_kind("CLIENT"), key=lambda span: span.attributes.get("http.request.resend_count", 0)
    )
    call = spans.only("INTERNAL")
    assert parent_of(loser) == parent_of(winner) == id_of(call)
    assert [header(loser), header(winner)] == [told(start) for start in starts]
    assert (loser.attributes["error.type"], winner.attributes["http.response.status_code"]) == ("cancelled", 200)
    assert loser.attributes["meshlib.endpoint"] == starts[0].host.address
    assert winner.attributes["meshlib.endpoint"] == starts[1].host.address
    assert winner.end_time == call.end_time > loser.end_time
    assert call.attributes["meshlib.attempts"] == 2


def test_a_bad_response_ends_before_the_good_one() -> None:
    spans = Spans()
    player, starts = hedged(spans)
    player.send((starts[1], at_time(Outcome(503, []), 1.5)))
    assert isinstance(player.last, Discard)
    player.send(1.5)
    player.send((starts[0], at_time(Outcome(200, []), 1.8)))
    player.body_ends(2.0)
    by_status = {span.attributes["http.response.status_code"]: span for span in spans.of_kind("CLIENT")}
    assert {header(by_status[200]), header(by_status[503])} == {told(start) for start in starts}
    assert header(by_status[200]) == told(starts[0])
    assert by_status[503].end_time < by_status[200].end_time


def test_a_call_that_is_left_leaves_no_span_open() -> None:
    spans = Spans()
    player, _ = hedged(spans)
    abandon(player.flow, 1.7)
    attempts, call = spans.of_kind("CLIENT"), spans.only("INTERNAL")
    assert [span.attributes["error.type"] for span in attempts] == ["cancelled", "cancelled"]
    assert call.attributes["meshlib.response_flags"] == "DC"
