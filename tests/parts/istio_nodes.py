"""Meshes that follow Istio's generator, as a full sidecar node or as a proxyless gRPC one."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from meshlib import Mesh
from meshlib.model.report import Issue
from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
from meshlib.sources.xds.node import Locality, Node, sidecar_node
from meshlib.sources.xds.source import XdsSource
from parts.istio_server import IstioServer

Kind = Literal["sidecar", "grpc"]
OWN_ADDRESS = "10.9.9.9"
"""The nodes' address: what a ServiceEntry gives this endpoint, the node itself serves."""


@dataclass(frozen=True, slots=True)
class Asker:
    """A workload that is told what the mesh looks like for it; `locality` is `region/zone/sub_zone`."""

    namespace: str = "default"
    labels: tuple[tuple[str, str], ...] = ()
    locality: str = ""
    network: str = ""


ANYBODY = Asker()


def node(kind: Kind, asker: Asker = ANYBODY) -> Node:
    """The node of a workload `app`."""
    version, generator = ("1.31.0", "") if kind == "sidecar" else ("", "grpc")
    return sidecar_node(
        ip=OWN_ADDRESS,
        pod="app",
        namespace=asker.namespace,
        istio_version=version,
        generator=generator,
        metadata={"LABELS": dict(asker.labels)} | ({"NETWORK": asker.network} if asker.network else {}),
        locality=Locality(*(*asker.locality.split("/"), "", "")[:3]),
    )


def istio_mesh(server: IstioServer, kind: Kind = "sidecar", *, asker: Asker = ANYBODY, **options: Any) -> Mesh:
    """A mesh of that node, not yet started; `options` are those of `Mesh.from_xds`."""
    return Mesh.from_xds(Bootstrap((XdsServer(server.target),), node(kind, asker)), **options)


def refusals(mesh: Mesh) -> int:
    """How many resources the mesh has refused so far."""
    assert isinstance(mesh.source, XdsSource)
    stats = mesh.source.stats()
    return sum(found.updates_invalid for found in stats.types.values()) if stats else 0


def alike(issue: Issue) -> tuple[str, str, str]:
    """An issue without its resource's name and without positions: what it is about."""
    return issue.resource.partition(" ")[0], re.sub(r"\[\d+\]", "[]", issue.path), issue.reason
