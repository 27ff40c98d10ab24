"""The story, act by act. Each does something to the system, lets the load run, and holds the mesh to its promise."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from examples.demo.calls import percentile, within_chance
from examples.demo.receipts import Json
from examples.demo.stage import Stage, StoryOverError
from meshlib.engine.events import BreakerChanged, EndpointEjected, EndpointReturned, RateLimited

Act = Callable[[Stage], Awaitable[None]]
ROUNDING = 25  # ms; gRPC rounds timeouts up, those of two seconds to the next 10 ms
BURST = 5  # requests, and as many a second: the limit of the rate limit act


async def warm_up(stage: Stage) -> None:
    """Everything runs on stable; one call is followed through the mesh."""
    await stage.hold(0.5)  # connections are made
    began = time.monotonic()
    await stage.hold(2.0)
    calls = stage.ledger.between(began, time.monotonic())
    charges = [call.took for call in calls if call.kind == "charge"]
    canary = sum(call.cluster == "canary" for call in calls)
    stage.promise("before the first shift nothing reaches the canary", not canary, f"{canary} of {len(calls)} calls")
    quiet = f"p50 {percentile(charges, 0.5) * 1000:.1f} ms, p99 {percentile(charges, 0.99) * 1000:.1f} ms"
    stage.results.figure("latency of a charge, all quiet", quiet)
    await follow_one_call(stage)


async def follow_one_call(
    stage: Stage, protocol: str = "HTTP", promise: str = "trace, request id and deadline travel with a call"
) -> list[Json]:
    """Through payments and on by HTTP or gRPC: trace and request id arrive everywhere, the deadline shrinks. What each
    service saw.
    """
    trace, request_id = secrets.token_hex(16), f"demo-{secrets.token_hex(4)}"
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01", "x-request-id": request_id}
    async with stage.mesh.http.async_client("payments") as client:
        seen: list[Json] = (await client.get("/checkout", headers=headers)).json()["hops"]
    hops = [seen[0], *(hop for hop in seen[1:] if hop["protocol"] == protocol)]
    same = all(trace in hop["traceparent"] and hop["x-request-id"] == request_id for hop in hops)
    kept = len(hops) == 2 and same and hops[0]["ms_left"] + ROUNDING >= hops[1]["ms_left"] > 0
    path = " → ".join(f"{hop['instance']} ({hop['ms_left']} ms left)" for hop in hops)
    stage.promise(promise, kept, f"trace {trace[:8]}…: client → {path}")
    return seen


async def canary(stage: Stage) -> None:
    """0 → 10 → 50 → 100 % to the canary, by editing two weights."""
    for percent in (10, 50, 100):
        revision = await stage.change(stable_weight=100 - percent, canary_weight=percent)
        await stage.hold(3.0)
        calls = stage.ledger.routed_by(revision)
        hits = sum(call.cluster == "canary" for call in calls)
        share = 100 * hits / max(1, len(calls))
        kept = within_chance(hits, len(calls), percent / 100)
        stage.promise(f"{percent} % to the canary", kept, f"{share:.1f} % of {len(calls)} charges")


async def flaky_joins(stage: Stage) -> None:
    """An instance that fails four of five requests, slowly, joins the canary; it also serves the optional hints."""
    began = time.monotonic()
    await behave(stage, fail=0.8, delay=0.1)
    await stage.change(canary_endpoints=stage.endpoints("canary-1", "canary-2", "flaky-1"))
    ejected = await stage.wait_event(EndpointEjected, began, lambda e: stage.names.get(e.endpoint) == "flaky-1")
    opened = await stage.wait_event(BreakerChanged, began, lambda e: (e.name, e.new) == ("hints", "open"))
    await stage.hold(4.0)
    healed = time.monotonic()
    await behave(stage)
    closed = await stage.wait_event(BreakerChanged, healed, lambda e: (e.name, e.new) == ("hints", "closed"))
    await stage.change(canary_endpoints=stage.endpoints("canary-1", "canary-2"))

    calls = stage.ledger.between(began, time.monotonic())
    charges = [call for call in calls if call.kind != "hint"]
    retried = sum(call.attempts > 1 for call in charges)
    bad = sum(call.failed for call in charges)
    stage.promise("retries hide a failing instance", retried > 0 and not bad, f"{retried} calls retried, {bad} failed")
    when = f"after {ejected.at - began:.1f} s, {ejected.reason}" if ejected else "no"
    stage.promise("outlier detection ejects it", ejected is not None, when)
    quick = [call.took for call in calls if call.answer == "circuit open"]
    measured = f"{len(quick)} hints refused in p50 {percentile(quick, 0.5) * 1000:.2f} ms" if quick else "never open"
    kept = opened is not None and closed is not None and bool(quick)
    stage.promise("the circuit breaker opens, and closes when it is well", kept, measured)


async def behave(stage: Stage, fail: float = 0.0, delay: float = 0.0) -> None:
    """Tell the flaky instance how to be, past the mesh."""
    async with stage.direct("flaky-1") as instance:
        await instance.post("/behave", fail=fail, delay=delay)


async def rate_limit(stage: Stage) -> None:
    """A token bucket on /report, and off again."""
    revision = await stage.change(burst=BURST, tokens_a_second=BURST)
    began = time.monotonic()
    await stage.hold(2.5)
    await stage.wait_for(lambda: any(call.answer == 429 for call in stage.ledger.since(began)) or None)
    ended = time.monotonic()
    await stage.change(burst=1_000_000, tokens_a_second=1_000_000)
    # A refusal has the route's headers, too, as in Envoy: the revision alone does not tell that a call passed.
    passed = sum(call.answer != 429 for call in stage.ledger.routed_by(revision, "report"))
    refused = sum(call.answer == 429 for call in stage.ledger.all())
    told = sum(isinstance(event, RateLimited) for event in stage.events)
    allowed = BURST * (2 + int(ended - began + 1))  # the burst, what each second adds, and the edits' own time
    kept = refused > 0 and passed <= allowed and told == refused
    measured = f"{passed} passed, {refused} answered 429, {told} events"
    stage.promise(f"a limit of {BURST} a second holds, and each refusal is told", kept, measured)


async def kill_instance(stage: Stage, victim: str = "canary-2", what: str = "an instance") -> None:
    """One instance is ended by `kill -9` under load; later it returns at the same address."""
    began = time.monotonic()
    stage.screen.say(f"kill -9 {victim}")
    stage.instances[victim].kill()
    ejected = await stage.wait_event(EndpointEjected, began, lambda e: stage.names.get(e.endpoint) == victim)
    await stage.hold(1.5)
    await stage.enter((stage.roles[victim], victim))
    back = time.monotonic()
    stage.screen.say(f"{victim} runs again")
    address = f"127.0.0.1:{stage.ports[victim]}"
    await stage.wait_event(EndpointReturned, began, lambda e: e.endpoint == address)
    served = await stage.wait_for(
        lambda: next((c for c in stage.ledger.since(back) if c.endpoint == address and not c.failed), None)
    )
    calls = stage.ledger.between(began, time.monotonic())
    failed = sum(call.failed for call in calls)
    retried = sum(call.attempts > 1 for call in calls)
    measured = f"{len(calls)} calls meanwhile, {retried} retried, {failed} failed"
    stage.promise(f"kill -9 of {what} fails no call", bool(calls) and not failed, measured)
    seconds = f"ejected after {ejected.at - began:.2f} s" if ejected else "never ejected"
    stage.promise(f"{what} that is dead is ejected, and used again when it is back", bool(ejected and served), seconds)
    stage.results.figure(f"calls while {what} was dead", str(len(stage.ledger.between(began, back))))


async def stop_control_plane(stage: Stage) -> None:
    """The control plane is ended by `kill -9`; traffic goes on, and edits count again when it is back."""
    before = stage.conf.revision
    stage.screen.say("kill -9 control plane")
    stage.control_plane.kill()
    began = time.monotonic()
    waiting = stage.conf.edit(stable_weight=50, canary_weight=50)
    await stage.hold(2.5)
    ended = time.monotonic()
    calls = stage.ledger.between(began, ended)
    failed = sum(call.failed for call in calls)
    kept_on = all(call.revision == before for call in calls if call.kind == "charge" and not call.failed)
    measured = f"{len(calls)} calls in {ended - began:.1f} s, {failed} failed, all by edit {before}"
    stage.promise(
        "without a control plane the last configuration serves", bool(calls) and kept_on and not failed, measured
    )
    stage.results.figure("calls without a control plane", str(len(calls)))

    await stage.open_control_plane()
    effect = await stage.effect_of(waiting, time.monotonic())
    stage.promise(
        "back again, it is found and heard", effect < 10, f"after {effect:.2f} s, with the edit made meanwhile"
    )
    await stage.change(stable_weight=20, canary_weight=80)


async def bad_edit(stage: Stage) -> None:
    """A typo in a weight: refused with its place, and the version before stays."""
    before = stage.conf.revision
    began = time.monotonic()
    stage.conf.spoil(canary_weight="lots")
    told = await stage.wait_for(lambda: re.search(r"[^/\s]*traffic\.yaml:\d+: error: .*", stage.control_plane.output()))
    refused = await stage.wait_for(lambda: re.search(r"refused: .*", stage.control_plane.output()))
    await stage.hold(1.0)
    routed = {call.revision for call in stage.ledger.between(began, time.monotonic()) if call.kind == "charge"}
    where = told[0] if told else "nothing"
    stage.screen.say(f"control plane: {where}")
    stage.screen.say(f"control plane: {refused[0] if refused else 'nothing'}")
    kept = told is not None and "weight" in where and refused is not None and routed <= {before, None}
    stage.promise("a bad edit is refused with file, line and field", kept, f"{where}; calls stay on edit {before}")
    await stage.change(stable_weight=100, canary_weight=0)


async def play(stage: Stage, story: Sequence[tuple[str, Act]]) -> None:
    """All acts in order; an edit without effect ends the story early."""
    with suppress(StoryOverError):
        for number, (title, act) in enumerate(story, 1):
            stage.screen.act(f"Act {number} of {len(story)}: {title}")
            await act(stage)
