"""Who is asking: istiod answers each workload by its namespace, its labels and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshlib.sources.istio.labels import with_topology

if TYPE_CHECKING:
    from meshlib.sources.xds.node import Node

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Caller:
    """The workload that the configuration is for. `locality` is `region/zone/sub_zone`, with what is known of it;
    `labels` include those of the topology, as istiod gives them to a proxy.
    """

    namespace: str = DEFAULT_NAMESPACE
    labels: tuple[tuple[str, str], ...] = ()
    locality: str = ""
    network: str = ""

    def has(self, labels: Mapping[str, str] | None) -> bool:
        """Whether it carries all of them."""
        return (labels or {}).items() <= dict(self.labels).items()


NOBODY = Caller()
"""Without a node: a caller in the namespace `default`, without labels, in no locality."""


def caller_of(node: Node | None) -> Caller:
    """The caller that an xDS node describes: NAMESPACE, LABELS and NETWORK of its metadata, and its locality. A label
    `istio-locality` goes before the locality, as for istiod.
    """
    if node is None:
        return NOBODY
    found = node.metadata.get("LABELS")
    labels = {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}
    network = str(node.metadata.get("NETWORK") or "")
    said = (node.locality.region, node.locality.zone, node.locality.sub_zone)
    locality = labels.get("istio-locality", "").replace(".", "/") or "/".join(said).rstrip("/")
    every = with_topology(labels, locality, network)
    namespace = str(node.metadata.get("NAMESPACE") or DEFAULT_NAMESPACE)
    return Caller(namespace, tuple(sorted(every.items())), locality, network)
