"""Routes that match by dynamic metadata and filter state, held against an Envoy whose filters set both from headers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from differential.routing_envoy import RoutingEnvoy
from differential.routing_generate import named
from differential.routing_observed import Ask
from differential.routing_ours import OurRouting, head_of
from differential.routing_render import route_configuration
from differential.test_routing_hash_differential import SHARES, showing_hashes
from meshlib import call_metadata
from meshlib.model.context_matchers import (
    AnyOf,
    AnyValue,
    DoubleMatch,
    FilterStateMatcher,
    ListHas,
    MetadataMatcher,
    ValueMatcher,
)
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import DirectResponseAction, HashPolicy, Route, RouteConfiguration, VirtualHost
from meshlib.model.strings import StringMatcher
from meshlib.routing.hashing import compile_hash
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend
from parts.fixtures import Servers

ALL = PathMatcher("prefix", "/")
ANSWER = DirectResponseAction(200)
TYPE = "type.googleapis.com/envoy.extensions"
VALUES: Mapping[str, Any] = {
    "text": "gold",
    "empty": "",
    "number": 2,
    "fraction": 1.5,
    "yes": True,
    "no": False,
    "list": ["a", "gold"],
    "deep": {"b": "gold"},
}
LUA = {name: repr(value) for name, value in VALUES.items() if isinstance(value, str | float | int)} | {
    "yes": "true",
    "no": "false",
    "list": '{"a", "gold"}',
    "deep": '{b = "gold"}',
}
MATCHERS: tuple[ValueMatcher, ...] = (
    *(None, True, False, AnyValue(), AnyValue(present=False), DoubleMatch(2), DoubleMatch(1.5, 2), DoubleMatch(0, 9)),
    *(StringMatcher("exact", "gold"), StringMatcher("exact", ""), StringMatcher("safe_regex", ".*")),
    *(ListHas(StringMatcher("prefix", "g")), ListHas(True), AnyOf((True, StringMatcher("exact", "gold")))),
)
OBJECTS = ("10.1.2.3", "11.0.0.1", "fd00::7", "gold", "")
HASHED = "meshlib.hashed"
STATES = (
    StringMatcher("exact", "gold"),
    StringMatcher("suffix", "1", ignore_case=True),
    StringMatcher("safe_regex", ".*"),
)


def _filters() -> list[dict[str, Any]]:
    """Metadata by `x-value` and filter state by `x-state`; then the route is chosen anew."""
    lines = [f'if kind == "{name}" then data:set("f", "a", {text}) end' for name, text in LUA.items()]
    code = (
        "function envoy_on_request(handle)\n"
        '  local kind, data = handle:headers():get("x-value"), handle:streamInfo():dynamicMetadata()\n  '
        + "\n  ".join(lines)
        + "\n  handle:clearRouteCache()\nend"
    )
    state = {
        "object_key": "meshlib.key",
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": "%REQ(x-state)%"}, "omit_empty_values": True},
        "skip_if_empty": True,
    }
    hashable = {**state, "object_key": HASHED, "factory_key": "envoy.hashable_string"}
    return [
        {
            "name": "state",
            "typed_config": {
                "@type": f"{TYPE}.filters.http.set_filter_state.v3.Config",
                "on_request_headers": [state, hashable],
            },
        },
        {
            "name": "lua",
            "typed_config": {
                "@type": f"{TYPE}.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": code},
            },
        },
    ]


@pytest.fixture
def oracle(
    envoy: Callable[..., EnvoyServer], fast_backend: Callable[..., FastBackend], servers: Servers
) -> Iterator[RoutingEnvoy]:
    found = RoutingEnvoy(envoy, fast_backend, servers.folder("metadata"), filters=_filters())
    yield found
    found.close()


def _config(*matches: RouteMatch) -> RouteConfiguration:
    """Each match in a virtual host of its own, with the rest behind it."""
    hosts = tuple(
        VirtualHost(
            f"h{number}",
            (f"h{number}.test",),
            (named("yes", Route(match, ANSWER)), named("no", Route(RouteMatch(ALL), ANSWER))),
        )
        for number, match in enumerate(matches)
    )
    return RouteConfiguration("generated", hosts)


def test_values_of_dynamic_metadata(oracle: RoutingEnvoy) -> None:
    matches = [
        RouteMatch(ALL, dynamic_metadata=(MetadataMatcher("f", path, matcher, invert),))
        for matcher in MATCHERS
        for path in (("a",), ("a", "b"))
        for invert in (False, True)
    ]
    config = _config(*matches)
    oracle.push(route_configuration(config))
    ours = OurRouting(config)
    for number, match in enumerate(matches):
        for name, value in {**VALUES, "nothing": None}.items():
            ask = Ask("GET", f"h{number}.test", "/", (("x-value", name),))
            with call_metadata({"f": {"a": value}} if value is not None else {}):
                assert ours.ask(ask).route == oracle.ask(ask).route, (match.dynamic_metadata, name)


def test_objects_of_filter_state(oracle: RoutingEnvoy) -> None:
    matches = [RouteMatch(ALL, filter_state=(FilterStateMatcher("meshlib.key", match),)) for match in STATES]
    config = _config(*matches)
    oracle.push(route_configuration(config))
    ours = OurRouting(config)
    for number, match in enumerate(matches):
        for value in OBJECTS:
            ask = Ask("GET", f"h{number}.test", "/", (("x-state", value),) if value else ())
            with call_metadata(filter_state={"meshlib.key": value} if value else {}):
                assert ours.ask(ask).route == oracle.ask(ask).route, (match.filter_state, value)


def test_hashes_of_filter_state(oracle: RoutingEnvoy) -> None:
    by_state, by_header = HashPolicy("filter_state", HASHED), HashPolicy("header", "x-user")
    shares = set()
    for policies in (
        (by_state,),
        (by_header, by_state),
        (HashPolicy("filter_state", HASHED, terminal=True), by_header),
    ):
        hasher = compile_hash(policies)
        assert hasher is not None
        oracle.push({"virtual_hosts": [showing_hashes("a.test", policies)]})
        for value in ("gold", "10.1.2.3", "ü", "a b", "x" * 300, ""):
            raw = value.encode().decode("latin-1")
            ask = Ask("GET", "a.test", "/", (("x-user", "ann"), *((("x-state", raw),) if value else ())))
            with call_metadata(filter_state={HASHED: value} if value else {}):
                ours = hasher(head_of(ask))
            theirs = int(dict(oracle.ask(ask).headers)["x-share"])
            if ours is None:  # then Envoy picks at random
                assert (policies, value) == ((by_state,), "")
            else:
                shares.add(theirs)
                assert ours.hash % SHARES == theirs, (policies, value)
    assert len(shares) > 10


def test_in_envoy_a_text_has_to_be_hashable(oracle: RoutingEnvoy) -> None:
    """An object of `envoy.string` matches, and has no hash: here every text has one."""
    oracle.push({"virtual_hosts": [showing_hashes("a.test", [HashPolicy("filter_state", "meshlib.key")])]})
    ask = Ask("GET", "a.test", "/", (("x-state", "gold"),))
    assert len({dict(oracle.ask(ask).headers)["x-share"] for _ in range(10)}) > 1
