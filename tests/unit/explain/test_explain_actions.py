"""Copies, redirects and sessions, explained: the same that a call does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshlib.explain import Explainer
from meshlib.explain.text import lines
from meshlib.model.filters import HttpFilter
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.redirect import InternalRedirectPolicy
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.session import SessionHeader, StatefulSession
from meshlib.model.snapshot import Snapshot
from meshlib.routing.session import HeaderSession
from meshlib.sources.static import static_cluster

STATE = SessionHeader("x-session")
ACTION = RouteAction(
    "up",
    request_mirror_policies=(
        RequestMirrorPolicy("shadow", fraction=FractionalPercent(25)),
        RequestMirrorPolicy("nowhere"),
    ),
    internal_redirect=InternalRedirectPolicy(3, (302, 303)),
)


def explainer(action: RouteAction = ACTION, *, strict: bool = False) -> Explainer:
    route = Route(RouteMatch(PathMatcher("prefix", "/")), action)
    config = RouteConfiguration("routes", (VirtualHost("host", ("*",), (route,)),))
    manager = HttpConnectionManager(config, (HttpFilter("session", StatefulSession(STATE, strict)),))
    listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
    clusters = (static_cluster("up", ["10.0.0.1:80", "10.0.0.2:80"]), static_cluster("shadow", ["10.0.0.3:80"]))
    snapshot = Snapshot(listeners={"out": listener}, clusters={each.name: each for each in clusters})
    return Explainer(snapshot, seed=1)


def wanting(address: str) -> list[tuple[str, str]]:
    name, value = HeaderSession(STATE).header(address, 0.0)
    return [(name.decode(), value.decode())]


def test_copies_and_redirects() -> None:
    result = explainer().explain("GET", "http://up:8080/x")
    assert [(copy["cluster"], copy["exists"], copy["percent"], copy["authority"]) for copy in result.mirrors] == [
        ("shadow", True, 25.0, "up-shadow:8080"),
        ("nowhere", False, 100.0, "up-shadow:8080"),
    ]
    assert result.internal_redirect is not None
    assert (result.internal_redirect["codes"], result.internal_redirect["max_internal_redirects"]) == ([302, 303], 3)
    text = "\n".join(lines(result))
    assert "25 % to shadow as up-shadow:8080" in text
    assert "no such cluster" in text
    assert "302, 303 are followed, 3 at most" in text


@pytest.mark.parametrize("strict", [False, True])
def test_the_endpoint_a_session_wants(strict: bool) -> None:
    made = explainer(strict=strict)
    assert made.explain("GET", "http://up/").session == {"wanted": None, "strict": False, "honoured": False}
    for address in ("10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"):
        result = made.explain("GET", "http://up/", wanting(address))
        assert (result.endpoint, result.session) == (
            address,
            {"wanted": address, "strict": strict, "honoured": True},
        )
    result = made.explain("GET", "http://up/", wanting("10.9.9.9:80"))
    assert (result.endpoint is None) == strict
    assert (result.response_flag == "UH") == strict
    assert "cannot be used" in "\n".join(lines(result))


def test_a_route_without_any_of_it_says_nothing_of_it() -> None:
    plain = replace(ACTION, request_mirror_policies=(), internal_redirect=None)
    result = explainer(plain).explain("GET", "http://up/")
    assert (result.mirrors, result.internal_redirect) == ([], None)
