"""Labels of workloads, with those that say where one runs (istiod: `AugmentLabels`)."""

from __future__ import annotations

from collections.abc import Mapping

REGION = "topology.kubernetes.io/region"
ZONE = "topology.kubernetes.io/zone"
SUB_ZONE = "topology.istio.io/subzone"
NETWORK = "topology.istio.io/network"


def with_topology(labels: Mapping[str, str], locality: str, network: str) -> dict[str, str]:
    """The labels and those of the topology; a network that is among the labels stays."""
    found = dict(labels)
    known = zip((REGION, ZONE, SUB_ZONE), parts(locality), strict=True)
    found |= {name: part for name, part in known if part}
    if network:
        found.setdefault(NETWORK, network)
    return found


def parts(locality: str) -> tuple[str, str, str]:
    """Region, zone and sub-zone of `region/zone/sub_zone`."""
    region, zone, sub_zone = (*locality.split("/"), "", "")[:3]
    return region, zone, sub_zone
