"""Consul dies, freezes, forgets, or answers nonsense, under load: no call fails, and it is not asked too often."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from meshlib import Mesh, NotReadyError
from parts.consul_proxy import ConsulProxy, Mode
from parts.consul_server import ConsulServer
from parts.fast_backend import FastBackend
from parts.fixtures import Servers
from parts.load import Load
from parts.xds import eventually

pytestmark = pytest.mark.needs("consul")

Backends = Callable[..., FastBackend]
PATIENCE = 20.0
RATE = 10.0  # what `WatchLimits` allows a query in a second


def set_up(consul: ConsulServer, stable: FastBackend, canary: FastBackend, share: int = 10) -> None:
    """payments in two versions, of which the canary gets `share` percent."""
    for backend in (stable, canary):
        consul.register("payments", f"payments-{backend.name}", backend.port, Meta={"version": backend.name})
    consul.write("service-defaults", "payments", Protocol="http")
    named = {version: {"Filter": f"Service.Meta.version == {version}"} for version in ("v1", "v2")}
    consul.write("service-resolver", "payments", DefaultSubset="v1", Subsets=named)
    split(consul, share)


def split(consul: ConsulServer, share: int) -> None:
    splits = [{"Weight": 100 - share, "ServiceSubset": "v1"}, {"Weight": share, "ServiceSubset": "v2"}]
    consul.write("service-splitter", "payments", Splits=splits)


def follows(backend: FastBackend) -> None:
    before = backend.count
    eventually(lambda: backend.count > before, f"calls reach {backend.name}", PATIENCE)


def leaves(backend: FastBackend) -> None:
    """Calls reach the backend no more."""

    def quiet() -> bool:
        before = backend.count
        time.sleep(0.1)
        return backend.count == before

    eventually(quiet, f"calls leave {backend.name}", PATIENCE)


def assert_unharmed(load: Load) -> None:
    assert load.failures == []
    assert load.calls > 100


@pytest.fixture
def versions(fast_backend: Backends) -> tuple[FastBackend, FastBackend]:
    return fast_backend("v1"), fast_backend("v2")


@pytest.fixture
def proxied(
    consul_factory: Any, servers: Servers, versions: tuple[FastBackend, FastBackend]
) -> tuple[ConsulServer, ConsulProxy]:
    consul = consul_factory()
    set_up(consul, *versions)
    return consul, servers.keep(ConsulProxy(consul.port))


def test_killed_and_restarted_with_its_state(consul_factory: Any, mesh_of: Any, versions: Any) -> None:
    stable, canary = versions
    consul = consul_factory(persistent=True)
    set_up(consul, stable, canary)
    mesh = mesh_of(consul, "payments")
    with Load(mesh, "payments") as load:
        follows(canary)
        consul.kill()
        load.during(0.5)
        assert mesh.source.stats().failing > 0
        consul.restart()
        split(consul, 0)
        leaves(canary)
        split(consul, 100)
        leaves(stable)
    assert_unharmed(load)
    eventually(lambda: mesh.source.stats().stale_seconds == 0, "all is well", PATIENCE)


def test_restarted_with_nothing_in_it(consul_factory: Any, mesh_of: Any, versions: Any) -> None:
    """The index goes backwards and every list is empty: what was known outlives it until the grace is over."""
    stable, canary = versions
    consul = consul_factory()
    set_up(consul, stable, canary, share=50)
    mesh = mesh_of(consul, "payments", reset_grace=2.0)
    with Load(mesh, "payments") as load:
        follows(canary)
        consul.kill()
        consul.restart()
        assert consul.health("payments") == {}
        eventually(lambda: mesh.source.stats().went_back >= 1, "the index went backwards", PATIENCE)
        before = canary.count
        load.during(0.3)
        assert canary.count > before, "the split is kept as well"
        set_up(consul, stable, canary, share=0)
        leaves(canary)
        load.during(2.2)
    assert_unharmed(load)
    eventually(lambda: mesh.source.stats().failing == 0, "all is well")


def test_frozen_and_thawed(consul_factory: Any, mesh_of: Any, versions: Any) -> None:
    stable, canary = versions
    consul = consul_factory()
    set_up(consul, stable, canary)
    mesh = mesh_of(consul, "payments", wait=1.0)
    with Load(mesh, "payments") as load:
        follows(canary)
        consul.pause()
        load.during(1.0)
        consul.resume()
        split(consul, 100)
        leaves(stable)
    assert_unharmed(load)


def test_answers_that_are_no_good(proxied: Any, mesh_of: Any, versions: Any) -> None:
    """One fault after the other, with a change behind each that must arrive."""
    consul, proxy = proxied
    stable, canary = versions
    mesh = mesh_of(proxy.address, "payments", wait=2.0)
    modes: tuple[Mode, ...] = ("500", "hang", "trickle", "garbage", "reset", "empty", "429")
    with Load(mesh, "payments", tasks=2) as load:
        follows(canary)
        for number, mode in enumerate(modes):
            bad = time.monotonic()
            proxy.behave(mode)
            load.during(0.7)
            seconds = time.monotonic() - bad
            asked = Counter(target.partition("?")[0] for target in proxy.asked_since(bad))
            proxy.behave("pass")
            split(consul, 0 if number % 2 else 100)
            leaves(canary if number % 2 else stable)
            queries = mesh.source.stats().watches  # a chain and two subsets, more while the one becomes the other
            assert 1 <= sum(asked.values()) <= (queries + 1) * (3 + RATE * seconds), (mode, asked)
    assert_unharmed(load)
    eventually(lambda: mesh.source.stats().stale_seconds == 0, "all is well", PATIENCE)


def test_an_index_that_does_not_wait_is_no_busy_loop(proxied: Any, mesh_of: Any, versions: Any) -> None:
    """A proxy that loses Consul's headers: nothing can be waited for, so the bucket alone decides."""
    consul, proxy = proxied
    proxy.strip_index = True
    mesh = mesh_of(proxy.address, "payments")
    before, began = len(proxy.asked), time.monotonic()
    time.sleep(1.0)
    asked, seconds = len(proxy.asked) - before, time.monotonic() - began
    assert asked <= mesh.source.stats().watches * (3 + RATE * seconds)
    split(consul, 100)
    with Load(mesh, "payments", tasks=2) as load:
        leaves(versions[0])
    assert load.failures == []


def test_quiet_watches_ask_once_a_wait(proxied: Any, mesh_of: Any) -> None:
    consul, proxy = proxied
    mesh = mesh_of(proxy.address, "payments")
    blocking = mesh.source.stats().watches
    eventually(lambda: sum("index=" in target for _, target in proxy.asked) >= blocking, "every watch blocks")
    before = len(proxy.asked)
    for number in range(5):  # the catalog is busy with somebody else
        consul.register("other", f"other-{number}", 9000 + number)
    time.sleep(0.5)
    assert len(proxy.asked) - before <= blocking


def test_a_new_subset_gets_no_call_before_its_endpoints_are_known(
    consul_factory: Any, servers: Servers, mesh_of: Any, fast_backend: Backends, versions: Any
) -> None:
    """Make before break: each splitter names a subset nobody has heard of yet, under load."""
    stable, canary = versions
    consul = consul_factory()
    set_up(consul, stable, canary)
    mesh = mesh_of(consul, "payments")
    with Load(mesh, "payments") as load:
        for number in range(3, 11):
            backend = fast_backend(f"v{number}")
            consul.register("payments", f"payments-{backend.name}", backend.port, Meta={"version": backend.name})
            named = {f"v{n}": {"Filter": f"Service.Meta.version == v{n}"} for n in range(1, number + 1)}
            consul.write("service-resolver", "payments", DefaultSubset="v1", Subsets=named)
            shares = [{"Weight": 50, "ServiceSubset": "v1"}, {"Weight": 50, "ServiceSubset": backend.name}]
            consul.write("service-splitter", "payments", Splits=shares)
            follows(backend)
    assert_unharmed(load)


def test_without_consul_a_mesh_is_not_ready_and_says_why_and_starts_when_it_comes(
    consul_factory: Any, servers: Servers, mesh_of: Any, versions: Any
) -> None:
    consul = consul_factory()
    set_up(consul, *versions)
    proxy = servers.keep(ConsulProxy(consul.port))
    proxy.behave("500")
    mesh: Mesh = mesh_of(proxy.address, "payments", ready=False)
    with pytest.raises(NotReadyError, match="No cluster leader"):
        mesh.wait_ready(0.5)
    proxy.behave("pass")
    mesh.wait_ready()
    with mesh.http.client("payments") as client:
        assert client.get("/").status_code == 200


def test_more_services_than_connections_take_turns(consul_factory: Any, servers: Servers, mesh_of: Any) -> None:
    consul = consul_factory()
    names = [f"service-{number}" for number in range(10)]
    for name in names:
        consul.register(name, name, 9000)
    proxy = servers.keep(ConsulProxy(consul.port))
    mesh = mesh_of(proxy.address, *names, connections=5)
    eventually(lambda: len(mesh.plan.snapshot.endpoints) == len(names), "all are known", PATIENCE)
    assert len(proxy._open) <= 5 + 4, "and a few for questions that do not wait"
    consul.register(names[-1], "another", 9001)

    def endpoints() -> int:
        return sum(len(part.endpoints) for part in mesh.plan.snapshot.endpoints[names[-1]].localities)

    eventually(lambda: endpoints() == 2, "each has its turn", 40.0)


def test_a_consul_without_chains_is_health_alone(consul_factory: Any, mesh_of: Any, versions: Any) -> None:
    consul = consul_factory(config={"connect": {"enabled": False}})
    consul.register("payments", "payments-1", versions[0].port)
    mesh = mesh_of(consul, "payments")
    with mesh.http.client("payments") as client:
        assert client.get("/").json()["name"] == "v1"
    assert any(issue.severity == "degraded" and "Connect must be enabled" in issue.reason for issue in mesh.issues)
    eventually(lambda: mesh.source.stats().failing == 0, "which is no failure")


def test_a_host_that_has_too_many_connections_uses_fewer(consul_factory: Any, mesh_of: Any) -> None:
    """Consul answers 429 beyond its limit for a host, which other processes need as well."""
    consul = consul_factory(config={"limits": {"http_max_conns_per_client": 14}})
    names = [f"service-{number}" for number in range(12)]
    for name in names:
        consul.register(name, name, 9000)
    mesh = mesh_of(consul, *names, wait=2.0)

    def all_is_well() -> bool:
        return len(mesh.plan.snapshot.endpoints) == len(names) and not mesh.source.stats().failing

    eventually(all_is_well, "twenty-four watches on fewer connections", PATIENCE)
    assert any("429" in issue.reason for issue in mesh.issues), "and it is told"

    def registered() -> bool:
        try:
            consul.register(names[0], "another", 9001)
        except OSError:
            return False
        return True

    eventually(registered, "there is room for others", PATIENCE)
    parts = lambda: mesh.plan.snapshot.endpoints[names[0]].localities  # noqa: E731
    eventually(lambda: sum(len(part.endpoints) for part in parts()) == 2, "a change arrives", PATIENCE)
