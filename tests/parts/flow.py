"""A call flow played by hand: no loop, no clock, no wire. The test answers each command and sees the next."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from meshlib.engine.call import call_flow
from meshlib.engine.commands import BodyEnd, Command, Flow
from meshlib.engine.plan import Attached
from meshlib.engine.runtime import Runtime, UnknownHosts
from meshlib.model.cluster import CircuitBreakers, Cluster, Thresholds
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.request import RequestHead
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_cluster, static_snapshot

ENDED = "ended"
"""What a flow gives once it has nothing more to ask."""
ADDRESSES = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")


class Dice:
    """Random numbers said in advance: uniform numbers in order, the last for ever; bits are all zero."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = list(numbers) or [0.5]

    def random(self) -> float:
        return self._numbers.pop(0) if len(self._numbers) > 1 else self._numbers[0]

    def getrandbits(self, count: int) -> int:
        return 0


def runtime_of(
    snapshot: Snapshot | Mapping[str, Any] | None = None,
    *,
    rng: Any = None,
    attached: Attached | None = None,
    unknown_hosts: UnknownHosts = "reject",
    **options: Any,
) -> Runtime:
    """A runtime with a snapshot in force, or with clusters as `static_snapshot` takes them; None: three endpoints."""
    runtime = Runtime(rng or random.Random(1), attached=attached, unknown_hosts=unknown_hosts, fetch_timeout=15.0)
    if not isinstance(snapshot, Snapshot):
        snapshot = static_snapshot(snapshot if snapshot is not None else {"payments": ADDRESSES}, **options)
    runtime.install(runtime.compile(snapshot, None))
    return runtime


def limited_cluster(
    name: str = "payments", addresses: Any = ADDRESSES, *, limits: Any = None, **options: Any
) -> Cluster:
    """A cluster with thresholds."""
    cluster = static_cluster(name, addresses, **options)
    return replace(cluster, circuit_breakers=CircuitBreakers(default=Thresholds(**(limits or {}))))


def get(authority: str = "payments", path: str = "/", *headers: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead("GET", "http", authority, path, [(b"Host", authority.encode()), *headers])


class Player:
    """One flow. `last` is the command that waits for an answer, `ENDED` when none does."""

    def __init__(self, runtime: Runtime, head: RequestHead | None = None, now: float = 0.0, **options: Any) -> None:
        self.flow: Flow = call_flow(runtime, head or get(), now, **options)
        self.last: Any = next(self.flow)
        self.commands: list[Command] = [self.last]

    def send(self, answer: Any) -> Any:
        """Answer the last command; the next one."""
        try:
            self.last = self.flow.send(answer)
        except StopIteration:
            self.last = ENDED
        else:
            self.commands.append(self.last)
        return self.last

    def responds(self, status: int, at: float, *headers: tuple[bytes, bytes]) -> Any:
        """The attempt brought a response at `at`."""
        return self.send(at_time(Outcome(status, list(headers)), at))

    def fails(self, failure: Failure, at: float, *, sent: bool = True, error: BaseException | None = None) -> Any:
        """The attempt brought none."""
        return self.send(at_time(Outcome(failure=failure, request_sent=sent, error=error), at))

    def body_ends(self, at: float, failure: Failure | None = None) -> Any:
        """The committed response's body is over."""
        return self.send(BodyEnd(at, failure))

    def close(self) -> None:
        self.flow.close()
        self.last = ENDED

    @property
    def kinds(self) -> list[str]:
        """The names of the commands so far."""
        return [type(command).__name__ for command in self.commands]


def at_time(outcome: Outcome, at: float) -> Outcome:
    outcome.at = at
    return outcome


def held(runtime: Runtime) -> dict[str, int]:
    """What flows have not given back, by name."""
    found: dict[str, int] = {}
    for cluster in runtime.state.clusters.values():
        for name in ("default", "high"):
            load = getattr(cluster, name)
            found |= {f"{name}.{kind}": len(getattr(load, kind)) for kind in ("requests", "pending", "retries")}
        found |= {cell.address: cell.active for cell in cluster.endpoints.values()}
    return {name: count for name, count in found.items() if count}
