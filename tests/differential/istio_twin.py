"""The same Istio objects twice: read from a file by our translation, and sent by istiod's generator over xDS."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from differential.istio_differences import (
    comparable_cluster,
    comparable_explanation,
    comparable_host,
    comparable_tls,
    comparable_to_proxyless,
)
from meshlib import Mesh
from meshlib.explain import Explainer
from meshlib.explain.explanation import Explanation
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment, LbEndpoint
from meshlib.model.snapshot import Snapshot
from meshlib.sources.files.loader import load
from meshlib.sources.files.snapshot import build_snapshot
from parts.istio_nodes import ANYBODY, Asker, Kind, istio_mesh, node, refusals
from parts.istio_server import IstioServer
from parts.xds import eventually

Request = tuple[str, str, tuple[tuple[str, str], ...]]
"""Method, URL, headers."""


class IstioTwin:
    """Both configurations of a generator's objects, as the sidecar node of `asker` sees them; with `names`
    (`host:port`) as its proxyless node does that asks for these.
    """

    def __init__(self, server: IstioServer, asker: Asker = ANYBODY, names: Iterable[str] = ()) -> None:
        kind: Kind = "grpc" if names else "sidecar"
        self.ours, self.issues = build_snapshot(load([server.folder / "objects.yaml"], node(kind, asker)))
        self.theirs = _followed(istio_mesh(server, kind, asker=asker, declared=names), set(names))
        self._comparable = comparable_to_proxyless if names else comparable_explanation
        self._explainers = (Explainer(self.ours), Explainer(self.theirs))

    def clusters(self) -> Iterator[tuple[str, Any, Any]]:
        """Every outbound cluster of either side with what it is on both, in comparable form."""
        names = {name for side in (self.ours, self.theirs) for name in side.clusters if name.startswith("outbound|")}
        for name in sorted(names):
            yield name, _described(self.ours, name), _described(self.theirs, name)

    def virtual_hosts(self) -> Iterator[tuple[str, Any, Any]]:
        """Every virtual host of the ports' route configurations with what it is on both sides, in comparable form. (A
        port whose services all have addresses and no protocol has no such table at istiod.)
        """
        for table in sorted(name for name in self.ours.routes if name in self.theirs.routes and name.isdigit()):
            ours, theirs = _hosts(self.ours, table), _hosts(self.theirs, table)
            for name in sorted({*ours, *theirs}):
                yield f"{table} {name}", ours.get(name), theirs.get(name)

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, dict[str, Any], dict[str, Any]]]:
        """Each request with the decision of both sides, in comparable form."""
        for number, request in enumerate(requests):
            ours, theirs = (self._explain(explainer, number, request) for explainer in self._explainers)
            yield request, self._comparable(ours), self._comparable(theirs)

    def _explain(self, explainer: Explainer, number: int, request: Request) -> Explanation:
        explainer._rng.seed(number)  # the same draws on both sides, whatever was asked before
        method, url, headers = request
        return explainer.explain(method, url, headers)


def _followed(mesh: Mesh, names: set[str]) -> Snapshot:
    with mesh:
        mesh.wait_ready()
        eventually(lambda: names <= mesh.plan.snapshot.listeners.keys(), "every listener", 30.0)
        assert refusals(mesh) == 0
        return replace(mesh.plan.snapshot, resolved=None)  # names as they were sent: nobody can resolve ours


def _hosts(side: Snapshot, table: str) -> dict[str, Any]:
    found = side.routes.get(table)
    return {host.name: comparable_host(host) for host in found.virtual_hosts} if found else {}


def _described(side: Snapshot, name: str) -> Any:
    found = side.clusters.get(name)
    return None if found is None else (comparable_cluster(found), _endpoints(side, found))


def _endpoints(side: Snapshot, cluster: Cluster) -> Any:
    """Localities with their endpoints, in an order of their own; what istiod tells telemetry of them is left out."""
    found = side.assignment(cluster) or ClusterLoadAssignment(cluster.name)
    localities = [
        (str(entry.locality), entry.priority, entry.weight, sorted(map(str, _members(cluster, entry.endpoints))))
        for entry in found.localities
    ]
    return sorted(localities, key=str), found.overprovisioning_factor


def _members(cluster: Cluster, endpoints: Iterable[LbEndpoint]) -> Iterator[tuple[Any, ...]]:
    for each in endpoints:
        yield str(each.address), each.weight, each.health_status, each.hostname, comparable_tls(cluster.tls_of(each))
