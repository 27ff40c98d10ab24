"""Calls with copies, internal redirects and sticky sessions, answered in any order and in any way, or given up at any
moment: in the end nothing is held, and what becomes of the copies changes nothing for the calls.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshlib.engine.call import mirror_flow
from meshlib.engine.commands import BodyEnd, Commit, Discard, Fail, Mirror, Start, Wait
from meshlib.engine.runtime import Runtime
from meshlib.model.cluster import CircuitBreakers, Thresholds
from meshlib.model.filters import HttpFilter, RouterFilter
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.redirect import InternalRedirectPolicy
from meshlib.model.route import RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.session import SessionCookie, SessionHeader, StatefulSession
from meshlib.model.snapshot import Snapshot
from meshlib.routing.session import HeaderSession
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, ENDED, Player, at_time, get, held

STATE = SessionHeader("x-session")
mirrors = st.lists(
    st.builds(
        RequestMirrorPolicy,
        st.sampled_from(["shadow", "up", "nowhere"]),
        fraction=st.sampled_from([FractionalPercent(100), FractionalPercent(50)]),
    ),
    max_size=3,
).map(tuple)
redirects = st.none() | st.builds(
    InternalRedirectPolicy, st.integers(0, 3), st.just((302, 303)), previous_routes=st.booleans()
)
sessions = st.none() | st.builds(StatefulSession, st.sampled_from([STATE, SessionCookie("s")]), strict=st.booleans())
outcomes = st.sampled_from([200, 302, 303, 500, 503]) | st.sampled_from(Failure)
LOCATIONS = (b"http://up/a", b"http://up/b", b"/relative", b"https://up/a", b"http://else/a")


class World:
    """Calls, their copies, and a clock that the script moves."""

    def __init__(self, draw: Any, *, with_copies: bool = True) -> None:
        self.draw = draw
        self.now = 0.0
        action = RouteAction(
            "up",
            retry_policy=draw(st.none() | st.just(RetryPolicy(("5xx", "reset"), 2))),
            request_mirror_policies=draw(mirrors) if with_copies else (),
            internal_redirect=draw(redirects),
        )
        routes = tuple(
            Route(RouteMatch(PathMatcher("prefix", prefix)), action, prefix.strip("/")) for prefix in ("/a", "/b")
        )
        session = draw(sessions)
        filters = () if session is None else (HttpFilter("session", session),)
        manager = HttpConnectionManager(
            RouteConfiguration("routes", (VirtualHost("host", ("up",), routes),)),
            (*filters, HttpFilter("router", RouterFilter())),
        )
        shadow = replace(
            static_cluster("shadow", ["10.9.9.9:80"]),
            circuit_breakers=CircuitBreakers(Thresholds(max_requests=draw(st.integers(0, 3)))),
        )
        clusters = {"up": static_cluster("up", ADDRESSES), "shadow": shadow}
        self.runtime = Runtime(random.Random(draw(st.integers(0, 99))), unknown_hosts="reject")
        listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
        snapshot = Snapshot(listeners={"out": listener}, clusters=clusters)
        self.runtime.install(self.runtime.compile(snapshot, None))
        self.players: list[Player] = []
        self.copies: list[Player] = []

    def begin(self) -> None:
        wanted = self.draw(st.sampled_from([*ADDRESSES, "10.7.7.7:80", ""]))
        headers = (HeaderSession(STATE).header(wanted, 0.0),) if wanted else ()
        head = get("up", self.draw(st.sampled_from(["/a", "/b"])), *headers)
        self.players.append(Player(self.runtime, head, now=self.now, replayable=self.draw(st.booleans())))

    def step(self) -> None:
        """Begin a call, answer one or a copy, or give one up."""
        self.now += self.draw(st.sampled_from([0.0, 0.3, 4.0]))
        waiting = [player for player in (*self.players, *self.copies) if player.last != ENDED]
        what = self.draw(st.sampled_from(["begin", "answer", "answer", "answer", "answer", "give up"]))
        if what == "begin" or not waiting:
            self.begin()
            return
        player = self.draw(st.sampled_from(waiting))
        if what == "give up":
            player.close()
        else:
            self.answer(player)

    def answer(self, player: Player) -> None:
        match player.last:
            case Mirror() as mirror:
                self.copies.append(self.copied(mirror))
                player.send(self.now)
            case Start():
                drawn = self.draw(outcomes)
                if isinstance(drawn, Failure):
                    outcome = Outcome(failure=drawn, request_sent=self.draw(st.booleans()))
                else:
                    outcome = Outcome(drawn, [(b"location", self.draw(st.sampled_from(LOCATIONS)))])
                player.send(at_time(outcome, self.now))
            case Discard() | Wait():
                player.send(self.now)
            case Commit():
                assert player.send(BodyEnd(self.now, self.draw(st.none() | st.sampled_from(Failure)))) == ENDED
            case Fail():
                assert player.send(None) == ENDED

    def copied(self, mirror: Mirror) -> Player:
        """A copy, as its driver plays it."""
        player = Player.__new__(Player)
        player.flow = mirror_flow(self.runtime, mirror, self.now)
        player.last = next(player.flow)
        player.commands = [player.last]
        return player

    def check(self) -> None:
        load = self.runtime.state.cluster("up").default
        everybody = (*self.players, *self.copies)
        sent = [player for player in everybody if isinstance(player.last, Start | Commit) and self.at_up(player)]
        sent += [player for player in everybody if isinstance(player.last, Mirror)]  # the attempt is admitted already
        assert len(load.requests) == len(sent)

    @staticmethod
    def at_up(player: Player) -> bool:
        start = next(command for command in reversed(player.commands) if isinstance(command, Start))
        return start.cluster.name == "up"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_everything_is_given_back(data: st.DataObject) -> None:
    world = World(data.draw)
    for _ in range(data.draw(st.integers(1, 50))):
        world.step()
        world.check()
    everybody = [*world.players, *world.copies]
    while any(player.last != ENDED for player in everybody):
        for player in everybody:
            if data.draw(st.integers(0, 4)) == 0:
                player.close()
            if player.last != ENDED:
                world.answer(player)
            world.check()
        everybody = [*world.players, *world.copies]
    assert held(world.runtime) == {}
    for player in world.players:
        assert player.kinds.count("Commit") + player.kinds.count("Fail") <= 1
        assert player.kinds.count("Discard") <= 2 + 3 * 3


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), mirrors, st.lists(outcomes, min_size=1, max_size=6))
def test_a_call_is_the_same_with_copies_and_without(
    seed: int, policies: tuple[RequestMirrorPolicy, ...], answers: list[Any]
) -> None:
    """The same commands but for the copies, whatever becomes of those; only chance may be asked once more for each."""
    policies = tuple(replace(each, fraction=FractionalPercent(100)) for each in policies if each.cluster != "up")
    seen = []
    for given_policies in ((), policies):
        route = Route(
            RouteMatch(PathMatcher("prefix", "/")),
            RouteAction(
                "up",
                retry_policy=RetryPolicy(("5xx", "reset"), 5),
                request_mirror_policies=given_policies,
                internal_redirect=InternalRedirectPolicy(2, (302, 303)),
            ),
        )
        config = RouteConfiguration("routes", (VirtualHost("host", ("*",), (route,)),))
        runtime = Runtime(random.Random(seed), unknown_hosts="reject")
        clusters = {"up": static_cluster("up", ADDRESSES), "shadow": static_cluster("shadow", ["10.9.9.9:80"])}
        runtime.install(runtime.compile(Snapshot(clusters=clusters, routes={"routes": config}), None))
        player = Player(runtime, get("up"))
        seen.append(played(runtime, player, list(answers)))
    assert seen[0] == seen[1]


def played(runtime: Runtime, player: Player, answers: list[Any]) -> list[Any]:
    """What the call does, told without its copies; those fail."""
    told: list[Any] = []
    while player.last != ENDED:
        match player.last:
            case Mirror() as mirror:
                copy = mirror_flow(runtime, mirror, 0.0)
                next(copy)
                copy.close()
                player.send(0.0)
                continue
            case Start() as start:
                told.append((start.host.address, start.head.path, sorted(start.head.headers), start.deadline))
                drawn = answers.pop(0) if answers else 200
                if isinstance(drawn, Failure):
                    outcome = Outcome(failure=drawn)
                else:
                    outcome = Outcome(drawn, [(b"location", b"http://up/next")])
                player.send(at_time(outcome, 0.0))
            case Commit() as commit:
                told.append(("commit", commit.outcome.status, commit.info.internal_redirects, commit.info.attempts))
                player.body_ends(1.0)
            case Fail() as fail:
                told.append(("fail", fail.failure.flag))
                player.send(None)
            case other:
                told.append(type(other).__name__)
                player.send(0.0)
    return told
