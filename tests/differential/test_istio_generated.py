"""Istio objects of every field we claim, through our files and through istiod's generator: the same decisions."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from differential.istio_generate import World, generate
from differential.istio_twin import IstioTwin
from meshlib.explain import Explainer
from parts.istio_nodes import node
from parts.istio_server import IstioServer

needs_istio = pytest.mark.needs("istio_generator")
SEEDS = range(1, 13)
MORE_SEEDS = range(100, 200)
SEEDS_OF_PROXYLESS = range(20, 26)
MET = {
    *("balancing", "pass_through", "response_flag", "retry_policy"),
    *("weights", "request_hash", "redirect", "direct_response", "mirrors"),
}


@pytest.fixture
def make_twin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., IstioTwin]]:
    caplog.set_level(logging.ERROR, "meshlib")  # what is degraded is another test's
    servers: list[IstioServer] = []

    def make(world: World, names: Iterable[str] = ()) -> IstioTwin:
        servers.append(IstioServer(tmp_path, world.objects))
        return IstioTwin(servers[-1], world.asker, names)

    yield make
    for server in servers:
        server.stop()


@needs_istio
@pytest.mark.parametrize("seed", [*SEEDS, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MORE_SEEDS)])
def test_the_same_objects_lead_to_the_same_decisions(seed: int, make_twin: Callable[..., IstioTwin]) -> None:
    world = generate(seed)
    twin = make_twin(world)
    assert [str(issue) for issue in twin.issues if issue.severity == "error"] == []
    compared = 0
    for name, ours, theirs in twin.clusters():
        assert ours == theirs, f"seed {seed}: cluster {name}"
        compared += 1
    assert compared > 0, "a Sidecar may leave little; what all seeds meet together is the last test's"
    for name, ours, theirs in twin.virtual_hosts():
        assert ours == theirs, f"seed {seed}: virtual host {name}"
    for request, ours, theirs in twin.ask(world.requests):
        assert ours == theirs, f"seed {seed}: {request}"


@needs_istio
@pytest.mark.parametrize("seed", SEEDS_OF_PROXYLESS)
def test_a_proxyless_client_is_told_the_same(seed: int, make_twin: Callable[..., IstioTwin]) -> None:
    world = generate(seed, services=24, requests=90, scoped=False)
    twin = make_twin(world, world.names)
    requests = [
        (method, url, headers) for method, url, headers in world.requests if urlsplit(url).netloc in world.names
    ]
    compared = 0
    for request, ours, theirs in twin.ask(requests):
        name = ours.get("cluster") or ""
        cluster = twin.ours.clusters.get(name)
        if ours.get("pass_through") or (name and (cluster is None or cluster.type != "EDS")):
            continue  # the route leads to a service without endpoints of its own
        assert ours == theirs, f"seed {seed}: {request}"
        compared += 1
    assert compared > 10


def test_the_requests_of_all_seeds_meet_all_that_can_become_of_one(tmp_path: Path) -> None:
    met: set[str] = set()
    for seed in SEEDS:
        world = generate(seed)
        file = tmp_path / f"{seed}.yaml"
        file.write_text(world.objects)
        explain = Explainer.from_files(file, seed=seed, node=node("sidecar", world.asker)).explain
        for request in world.requests:
            found = explain(*request).to_dict()
            met |= {name for name in MET if found[name]}
    assert met == MET
