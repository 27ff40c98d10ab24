"""The acts that need a registry; the others are those of `examples/demo`."""

from __future__ import annotations

import time
from contextlib import suppress

from consul import ConsulException

from examples.demo.acts import Act, canary, kill_instance, warm_up
from examples.demo.stage import Stage
from examples.demo_consul.entries import ConsulEntries


def registered(stage: Stage, service: str) -> set[str]:
    """The IDs of a service's instances in the catalog."""
    _, rows = _entries(stage).api.health.service(service)
    return {row["Service"]["ID"] for row in rows}


async def instance_leaves(stage: Stage) -> None:
    """SIGTERM: an instance deregisters, goes on serving, and ends; then it comes back and registers itself."""
    leaver, began = "canary-1", time.monotonic()
    stage.screen.say(f"SIGTERM to {leaver}")
    stage.instances[leaver].terminate()
    gone = await stage.wait_for(lambda: leaver not in registered(stage, "canary") or None)
    left, still = time.monotonic() - began, stage.instances[leaver].running
    ended = await stage.wait_for(lambda: not stage.instances[leaver].running or None)
    await stage.hold(0.5)
    calls = stage.ledger.between(began, time.monotonic())
    failed, retried = sum(call.failed for call in calls), sum(call.attempts > 1 for call in calls)
    kept = bool(gone and still and ended and calls) and not failed and not retried
    measured = f"deregistered after {left * 1000:.0f} ms; {len(calls)} calls, {retried} retried, {failed} failed"
    stage.promise("an instance that is stopped leaves Consul first, and no call fails", kept, measured)

    began = time.monotonic()
    await stage.enter(("canary", leaver))
    address = f"127.0.0.1:{stage.ports[leaver]}"
    served = await stage.wait_for(lambda: next((c for c in stage.ledger.since(began) if c.endpoint == address), None))
    after = f"after {served.began - began:.2f} s" if served else "never"
    stage.promise("it registers itself when it is back, and is called", served is not None, after)


async def consul_dies(stage: Stage) -> None:
    """`kill -9` of the agent; traffic goes on, and entries count again when it is back."""
    before = stage.conf.revision
    stage.screen.say("kill -9 consul")
    stage.control_plane.kill()
    began = time.monotonic()
    with suppress(OSError):
        stage.conf.edit(stable_weight=0, canary_weight=100)
    await stage.hold(3.0)
    ended = time.monotonic()
    calls = stage.ledger.between(began, ended)
    failed = sum(call.failed for call in calls)
    kept_on = all(call.revision == before for call in calls if call.kind == "charge" and not call.failed)
    measured = f"{len(calls)} calls in {ended - began:.1f} s, {failed} failed, all by edit {before}"
    stage.promise("without Consul the last answers serve", bool(calls) and kept_on and not failed, measured)
    asked = stage.mesh.source.stats()  # type: ignore[attr-defined]
    stage.promise("a Consul that is gone is not hammered", asked.failures < 1000, f"{asked.failures} questions failed")
    stage.results.figure("calls without Consul", str(len(calls)))

    await stage.open_control_plane()
    began = time.monotonic()
    effect = await stage.effect_of(stage.conf.edit(stable_weight=50, canary_weight=50), began)
    everyone = {"stable": 2, "canary": 2, "hints": 1}
    back = await stage.wait_for(lambda: all(len(registered(stage, s)) == n for s, n in everyone.items()) or None)
    await stage.hold(2.0)
    calls = stage.ledger.between(began, time.monotonic())
    failed = sum(call.failed for call in calls)
    kept = bool(back and calls) and not failed and effect < 10
    measured = f"an entry counts after {effect:.2f} s; {len(calls)} calls, {failed} failed"
    stage.promise("back again, it is heard, and no instance is lost", kept, measured)


async def bad_entry(stage: Stage) -> None:
    """Weights that do not add up: Consul refuses them, and the splitter before stays."""
    before, refusal = stage.conf.revision, ""
    began = time.monotonic()
    try:
        stage.conf.spoil(canary_weight=77)
    except ConsulException as error:
        refusal = str(error)
    await stage.hold(0.5)
    routed = {call.revision for call in stage.ledger.between(began, time.monotonic()) if call.kind == "charge"}
    kept = bool(refusal) and routed <= {before, None}
    stage.promise("an entry Consul refuses changes nothing", kept, refusal.partition(": ")[2] or refusal)
    await stage.change(stable_weight=100, canary_weight=0)


def _entries(stage: Stage) -> ConsulEntries:
    assert isinstance(stage.conf, ConsulEntries)  # noqa: S101  the stage of this demo
    return stage.conf


STORY: tuple[tuple[str, Act], ...] = (
    ("everything on stable", warm_up),
    ("a service-splitter gives the canary 10, 50, 100 %", canary),
    ("an instance is stopped, and started", instance_leaves),
    ("an instance dies", kill_instance),
    ("Consul dies", consul_dies),
    ("somebody writes weights that do not add up", bad_entry),
)
