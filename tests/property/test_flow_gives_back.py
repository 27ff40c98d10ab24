"""Any number of calls, answered in any order and in any way, or given up at any moment: nothing is lost, no limit is
exceeded, and in the end nothing is held.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshlib.engine.commands import BodyEnd, Cancel, Commit, Discard, Fail, Launch, Listen, Reply, Start, Wait
from meshlib.model.circuit_breaker import FallbackResponse
from meshlib.model.cluster import CircuitBreaker, OutlierDetection, RetryBudget
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.route import RetryPolicy
from meshlib.model.snapshot import Snapshot
from meshlib.policy.breaker import Breaker
from meshlib.policy.budget import retry_limit
from meshlib.sources.static import static_snapshot
from parts.flow import ADDRESSES, ENDED, Player, at_time, held, limited_cluster, runtime_of

budgets = st.none() | st.builds(
    RetryBudget, st.sampled_from([0.0, 20.0, 50.0, 100.0]), st.integers(min_value=0, max_value=3)
)
limits = st.fixed_dictionaries(
    {"max_requests": st.integers(0, 6), "max_retries": st.integers(0, 4), "retry_budget": budgets}
)
breakers = st.none() | st.builds(
    CircuitBreaker,
    fail_max=st.integers(1, 4),
    reset_timeout=st.sampled_from([0.1, 5.0]),
    success_threshold=st.integers(1, 2),
    half_open_permits=st.integers(1, 2),
    half_open_max_wait=st.sampled_from([0.0, 1.0]),
    failure_rate=st.sampled_from([None, 50.0]),
    minimum_calls=st.just(2),
    ramp_up=st.sampled_from([0.0, 1.0]),
    scope=st.sampled_from(["cluster", "endpoint"]),
    fallback=st.none() | st.just(FallbackResponse()),
)
detections = st.none() | st.builds(
    OutlierDetection,
    consecutive_5xx=st.integers(1, 3),
    base_ejection_time=st.sampled_from([0.1, 5.0]),
    interval=st.sampled_from([0.1, 5.0]),
    max_ejection_percent=st.sampled_from([10, 50, 100]),
)
policies = st.none() | st.builds(
    RetryPolicy,
    st.sampled_from([("5xx",), ("connect-failure", "reset"), ("gateway-error", "retriable-4xx")]),
    num_retries=st.integers(0, 4),
    per_try_timeout=st.none() | st.sampled_from([0.5, 3.0]),
    previous_hosts=st.booleans(),
)
outcomes = st.builds(Outcome, st.sampled_from([200, 404, 409, 500, 503])) | st.builds(
    lambda failure, sent: Outcome(failure=failure, request_sent=sent), st.sampled_from(Failure), st.booleans()
)
endings = st.none() | st.sampled_from(Failure)


class World:
    """Calls of one cluster and a clock that the script moves."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.now = 0.0
        self.policy: RetryPolicy | None = draw(policies)
        addresses = ADDRESSES[: draw(st.integers(0, 3))]
        cluster = limited_cluster(
            addresses=addresses, limits=draw(limits), circuit_breaker=draw(breakers), outlier_detection=draw(detections)
        )
        timeout = draw(st.sampled_from([None, 2.0]))
        rng = random.Random(draw(st.integers(0, 1000)))
        snapshot = static_snapshot({"payments": cluster}, retries=self.policy, timeout=timeout)
        snapshot = breaking(snapshot, draw(breakers))
        self.runtime = runtime_of(hedging(snapshot) if draw(st.booleans()) else snapshot, rng=rng)
        self.running: dict[Player, list[Start]] = {}
        self.thresholds = cluster.circuit_breakers.default
        self.load = self.runtime.state.cluster("payments").default
        self.players: list[Player] = []

    def step(self) -> None:
        """Begin a call, answer one, or give one up."""
        self.now += self.draw(st.sampled_from([0.0, 0.01, 0.3, 2.0]))
        waiting = [player for player in self.players if player.last != ENDED]
        what = self.draw(st.sampled_from(["begin", "answer", "answer", "answer", "give up"]))
        if what == "begin" or not waiting:
            deadline = self.draw(st.none() | st.just(self.now + 1.0))
            replayable = self.draw(st.booleans())
            player = Player(self.runtime, now=self.now, deadline=deadline, replayable=replayable)
            self.running[player] = []
            self.players.append(player)
            return
        player = self.draw(st.sampled_from(waiting))
        if what == "give up":
            player.close()
        else:
            self.answer(player)

    def answer(self, player: Player) -> None:
        match player.last:
            case Start():
                limit = retry_limit(self.load, self.thresholds)
                drawn: Outcome = self.draw(outcomes)
                outcome = Outcome(drawn.status, failure=drawn.failure, request_sent=drawn.request_sent)
                player.send(at_time(outcome, self.now))
                if isinstance(player.last, Discard | Wait):
                    assert len(self.load.retries) <= limit
            case Launch(start=start):
                self.running[player].append(start)
                player.send(self.now)
            case Listen(until=until):
                self.hear(player, until)
            case Cancel(start=start):
                self.running[player].remove(start)
                player.send(self.now)
            case Discard() | Wait():
                player.send(self.now)
            case Commit():
                assert player.send(BodyEnd(self.now, self.draw(endings))) == ENDED
            case Fail() | Reply():
                assert player.send(None) == ENDED

    def hear(self, player: Player, until: float | None) -> None:
        """One of the attempts that overlap ends, or none does before the flow has something to do."""
        running = self.running[player]
        if running and (until is None or self.draw(st.booleans())):
            start = self.draw(st.sampled_from(running))
            running.remove(start)
            drawn: Outcome = self.draw(outcomes)
            outcome = Outcome(drawn.status, failure=drawn.failure, request_sent=drawn.request_sent)
            player.send((start, at_time(outcome, self.now)))
        else:
            assert until is not None
            self.now = max(self.now, until)
            player.send(self.now)

    def check(self) -> None:
        """What holds at every moment."""
        active = [player for player in self.players if isinstance(player.last, Start | Commit)]
        backing_off = [player for player in self.players if isinstance(player.last, Discard | Wait)]
        for player in self.players:
            attempts = player.kinds.count("Start") + player.kinds.count("Launch")
            assert attempts <= 1 + (self.policy.num_retries if self.policy else 0)
            assert sum(player.kinds.count(kind) for kind in ("Commit", "Fail", "Reply")) <= 1
        for breaker in self.breakers():
            assert len(breaker._current().probes) <= breaker.policy.half_open_permits
        overlapping = [player for player in self.players if self.overlaps(player)]
        if overlapping:
            sent = sum(len(self.running[player]) for player in overlapping)
            # What is about to be cancelled has been given back already.
            sent -= sum(isinstance(player.last, Cancel) for player in overlapping)
            assert sent <= len(self.load.requests) <= sent + len(self.players)
            assert len(self.load.requests) <= self.thresholds.max_requests
            return
        assert len(self.load.requests) == len(active) <= self.thresholds.max_requests
        assert sum(cell.active for cell in self.runtime.state.cluster("payments").endpoints.values()) == len(active)
        failing = [player for player in self.players if isinstance(player.last, Fail | Reply)]  # about to end
        assert len(backing_off) <= len(self.load.retries) <= len(backing_off) + len(active) + len(failing)

    def breakers(self) -> Iterator[Breaker]:
        """Every breaker there is."""
        state = self.runtime.state.cluster("payments")
        yield from state.circuits.values()
        if state.breaker is not None:
            yield state.breaker
        for circuit in self.runtime.filters.values():
            yield circuit.breaker(None)

    def overlaps(self, player: Player) -> bool:
        """Whether its attempts overlap, and it has not ended."""
        return player.last != ENDED and "Launch" in player.kinds


def hedging(snapshot: Snapshot) -> Snapshot:
    """The same, with hedges at the per-try timeout."""
    routes = {
        name: replace(
            table, virtual_hosts=tuple(replace(host, hedge_on_per_try_timeout=True) for host in table.virtual_hosts)
        )
        for name, table in snapshot.routes.items()
    }
    return replace(snapshot, routes=routes)


def breaking(snapshot: Snapshot, policy: CircuitBreaker | None) -> Snapshot:
    """The same, with a breaker on each route."""
    routes = {}
    for name, table in snapshot.routes.items():
        hosts = [
            replace(host, routes=tuple(replace(route, circuit_breaker=policy) for route in host.routes))
            for host in table.virtual_hosts
        ]
        routes[name] = replace(table, virtual_hosts=tuple(hosts))
    return replace(snapshot, routes=routes)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_everything_is_given_back(data: st.DataObject) -> None:
    world = World(data.draw)
    for _ in range(data.draw(st.integers(1, 40))):
        world.step()
        world.check()
    for player in world.players:
        if data.draw(st.booleans()):
            player.close()
        while player.last != ENDED:
            world.answer(player)
            world.check()
    assert held(world.runtime) == {}
    late = world.now + 1000.0
    for breaker in world.breakers():
        # One that has been half-open for too long opens once more.
        given = breaker.permit(late) or breaker.permit(late + 100.0)
        assert given is not None, "no probe's place was lost"
    state = world.runtime.state.cluster("payments")
    for cell in state.endpoints.values():
        assert cell.tripped is (cell in state.tripped)
