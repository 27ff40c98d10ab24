"""Generated route tables through grpcio's `xds:///` and the mesh's channel: the same status, cluster and attempts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from differential.grpc_xds_generate import NAMES, Draw, Table, domains
from differential.grpc_xds_twin import World, endpoints_of, keyed, route
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import Ended, GrpcCall

Backends = Callable[[int], list[GrpcBackend]]
Worlds = Callable[[], World]
Json = dict[str, Any]
PER_WORLD = 30  # tables behind one listener
CHI_SQUARED_2 = 33.0  # two degrees of freedom: less than one in a million, also where 14 calls are expected


def clusters(backends: Sequence[GrpcBackend]) -> dict[str, Json]:
    """One backend a cluster. grpcio knows no `max_retries`, whose default of three would hold here."""
    open_wide = {"circuit_breakers": {"thresholds": [{"max_retries": 10_000}]}}
    served = {backend.name: {"endpoints": endpoints_of([backend]), **open_wide} for backend in backends}
    return {**served, "nowhere": {"endpoints": {"endpoints": []}}}


def both(world: World, calls: Sequence[GrpcCall]) -> list[tuple[Ended, Ended]]:
    """(theirs, ours) of calls that are made all at once; each with a key of its own."""
    numbered = [replace(call, key=f"{world.name}-{number}") for number, call in enumerate(calls)]
    theirs = world.theirs(*(keyed("xds", call) for call in numbered), together=True)
    ours = world.ours(*(keyed("mesh", call) for call in numbered), together=True)
    return list(zip(theirs, ours, strict=True))


def follow(world: World) -> None:
    """Until both follow what was put: a call of no case comes to the last route."""
    world.follow(lambda ended: ended.code == "OK")


def assert_alike(tables: Sequence[Table], pairs: Sequence[tuple[Ended, Ended]], *said: str) -> None:
    """The same in these fields; else one call of each table that differs, with all that is needed to see it again."""
    calls = [(table, call) for table in tables for call in table.calls]
    differ = {}
    for (table, call), (theirs, ours) in zip(calls, pairs, strict=True):
        if any(getattr(theirs, name) != getattr(ours, name) for name in said):
            differ[table.case] = [call, f"xds {theirs}", f"mesh {ours}", *table.routes]
    assert not differ, "\n\n".join("\n  ".join(map(str, one)) for one in differ.values())


@pytest.mark.parametrize(("seed", "count"), [(5, 120), pytest.param(6, 1200, marks=pytest.mark.slow)])
def test_which_route(xds_world: Worlds, echo_backends: Backends, seed: int, count: int) -> None:
    """Virtual hosts by their domains, routes by path, headers and fraction, clusters by shares of nothing and all."""
    rng, backends, seen = Random(seed), echo_backends(3), Counter[str]()
    for first in range(0, count, PER_WORLD):
        world = xds_world()
        draw = Draw(rng, world.cluster, (world.name, world.name[:3], "other"))
        hosts = domains(rng, world.name)
        tables = [draw.matching(f"case-{number}") for number in range(first, first + PER_WORLD)]
        made: list[Json] = []
        for number, names in enumerate(hosts):
            # The same cases in every virtual host, in another order of routes: which host is chosen can be told.
            routes = [one for table in tables for one in rng.sample(list(table.routes), len(table.routes))]
            last = route(world.cluster(NAMES[number % 3]))
            made.append({"name": f"host-{number}", "domains": names, "routes": [*routes, last]})
        world.put([], clusters(backends), virtual_hosts=made)
        follow(world)
        pairs = both(world, [call for table in tables for call in table.calls])
        assert_alike(tables, pairs, "code", "backend")
        seen.update(ours.backend or ours.code for _, ours in pairs)
    assert set(seen) == {"UNAVAILABLE", "a", "b", "c"}, seen


@pytest.mark.parametrize(("seed", "count"), [(7, 60), pytest.param(8, 600, marks=pytest.mark.slow)])
def test_how_many_attempts(xds_world: Worlds, echo_backends: Backends, seed: int, count: int) -> None:
    """Retry policies of routes and of virtual hosts against backends that fail by a script."""
    rng, backends = Random(seed), echo_backends(3)
    for first in range(0, count, PER_WORLD):
        world = xds_world()
        draw = Draw(rng, world.cluster, ())
        tables = [draw.retrying(f"case-{number}") for number in range(first, first + PER_WORLD)]
        routes = [one for table in tables for one in table.routes]
        host: Json = {"name": "all", "domains": ["*"], "routes": [*routes, route(world.cluster("a"))]}
        if draw.chance(0.7):
            host["retry_policy"] = draw.retry_policy()
        world.put([], clusters(backends), virtual_hosts=[host])
        follow(world)
        pairs = both(world, [call for table in tables for call in table.calls])
        assert_alike(tables, pairs, "code", "backend", "details", "arrival")
        arrivals = Counter[str]()
        for backend in backends:
            arrivals.update(dict(backend.state.arrivals))
        tried = [[arrivals[f"{who}-{world.name}-{n}"] for n in range(len(pairs))] for who in ("xds", "mesh")]
        assert tried[0] == tried[1], host.get("retry_policy")
        assert max(tried[1]) > 3


@pytest.mark.parametrize(("seed", "count"), [(9, 40), pytest.param(10, 400, marks=pytest.mark.slow)])
def test_how_long(xds_world: Worlds, echo_backends: Backends, seed: int, count: int) -> None:
    """Durations of listeners and of routes against slow answers and the callers' own timeouts."""
    rng, backends, seen = Random(seed), echo_backends(3), Counter[str]()
    for first, of_the_listener in zip(range(0, count, 20), itertools.cycle((None, "0.15s", "0s", "30s")), strict=False):
        world = xds_world()
        draw = Draw(rng, world.cluster, ())
        tables = [draw.timed(f"case-{number}") for number in range(first, first + 20)]
        listener = {"common_http_protocol_options": {"max_stream_duration": of_the_listener}} if of_the_listener else {}
        # What follows the routes is bounded by a duration of its own: by the listener's no call might come through.
        last = route(world.cluster("a"), max_stream_duration={"max_stream_duration": "30s"})
        routes = [*(one for table in tables for one in table.routes), last]
        world.put(routes, clusters(backends), manager=listener)
        follow(world)
        pairs = both(world, [call for table in tables for call in table.calls])
        assert_alike(tables, pairs, "code", "backend")
        seen.update(ours.code for _, ours in pairs)
    assert set(seen) == {"OK", "DEADLINE_EXCEEDED"}, seen


@pytest.mark.parametrize(("seed", "count"), [(11, 5), pytest.param(12, 50, marks=pytest.mark.slow)])
def test_how_many_where(xds_world: Worlds, echo_backends: Backends, seed: int, count: int) -> None:
    """Fractions and weights of clusters, by chi-squared."""
    world, backends = xds_world(), echo_backends(3)
    draw = Draw(Random(seed), world.cluster, ())
    drawn = [draw.sharing(f"case-{number}") for number in range(count)]
    routes = [one for table, _ in drawn for one in table.routes]
    world.put([*routes, route(world.cluster("a"))], clusters(backends))
    follow(world)
    for table, shares in drawn:
        pairs = both(world, table.calls)
        for who in (0, 1):
            counts = Counter(pair[who].backend for pair in pairs)
            expected = {name: share * len(pairs) for name, share in shares.items()}
            off = sum((counts[name] - share) ** 2 / share for name, share in expected.items())
            assert set(counts) <= set(NAMES)
            assert off < CHI_SQUARED_2, ("xds", "mesh")[who] + f" {counts} for {expected}"
