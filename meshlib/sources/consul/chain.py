"""`/v1/discovery-chain/:name` decoded: nodes (router, splitter, resolver) and targets as Consul compiled them.

The chain is the one answer that holds what service-router, service-splitter, service-resolver, service-defaults and
proxy-defaults say about a service together; what it means is `chain_routes`' and `chain_clusters`' to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshlib.model.report import Report, ResourceError
from meshlib.sources.consul.fields import Fields
from meshlib.sources.consul.query import Target

_EVERYWHERE = (
    "default"  # the one namespace and partition of Consul's community edition, which refuses to be asked for it
)
_CHAIN_FIELDS = (
    "ServiceName",
    "Namespace",
    "Partition",
    "Datacenter",
    "CustomizationHash",
    "Default",
    "Protocol",
    "ServiceMeta",
    "StartNode",
    "Nodes",
    "Targets",
    "AutoVirtualIPs",
    "ManualVirtualIPs",
)


@dataclass(frozen=True, slots=True)
class Resolver:
    """A resolver node: its target, and those to fail over to, in order. Seconds; None where nothing is said."""

    target: str
    failover: tuple[str, ...] = ()
    connect_timeout: float | None = None
    request_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """`nodes` are the JSON objects by name, checked to be there; `targets` say which instances."""

    service: str
    datacenter: str
    protocol: str
    is_default: bool
    start: str
    nodes: dict[str, Fields]
    targets: dict[str, Target]

    def node(self, name: str, from_where: Fields) -> Fields:
        """A node by name. Raises `ResourceError` when the chain does not have it."""
        found = self.nodes.get(name)
        if found is None:
            raise ResourceError(from_where.path, f"node {name!r} is not in the chain", from_where.resource)
        return found

    def resolver(self, name: str, from_where: Fields) -> Resolver:
        """A resolver node by name."""
        node = self.node(name, from_where)
        said = node.object("Resolver")
        if node.text("Type") != "resolver" or said is None:
            raise ResourceError(node.path, f"{node.text('Type')!r} where a resolver is expected", node.resource)
        said.only("Default", "ConnectTimeout", "RequestTimeout", "Target", "Failover")
        failover = said.object("Failover")
        targets = failover.texts("Targets") if failover else ()
        if failover:
            failover.only("Targets", "Policy")
            policy = failover.object("Policy")
            if policy and policy.text("Mode") not in ("", "sequential"):
                policy.degraded("Mode", f"{policy.text('Mode')!r} is not supported: targets are tried in their order")
        for target in (said.text("Target"), *targets):
            if target not in self.targets:
                raise ResourceError(said.at("Target"), f"target {target!r} is not in the chain", said.resource)
        return Resolver(said.text("Target"), targets, said.duration("ConnectTimeout"), said.duration("RequestTimeout"))


def decode_chain(answer: Any, service: str, report: Report) -> Chain:
    """The chain of an answer. Raises `ResourceError`."""
    resource = f"Consul discovery chain {service}"
    chain = Fields(answer, "", resource, report).object("Chain")
    if chain is None:
        raise ResourceError("Chain", "there is none in the answer", resource)
    chain.only(*_CHAIN_FIELDS)
    return Chain(
        chain.text("ServiceName"),
        chain.text("Datacenter"),
        chain.text("Protocol") or "tcp",
        chain.flag("Default"),
        chain.text("StartNode"),
        dict(chain.entries("Nodes")),
        {name: _target(target) for name, target in chain.entries("Targets")},
    )


def _target(target: Fields) -> Target:
    subset = target.object("Subset")
    if subset:
        subset.only("Filter", "OnlyPassing")
    gateway = target.object("MeshGateway")
    if gateway and gateway.text("Mode") in ("local", "remote"):
        gateway.degraded("Mode", "mesh gateways are not used: the instances are called directly, at their WAN address")
    if target.object("PrioritizeByLocality"):
        target.degraded("PrioritizeByLocality", "is not supported and has no effect")
    return Target(
        target.text("Service"),
        datacenter=target.text("Datacenter"),
        filter=subset.text("Filter") if subset else "",
        only_passing=subset.flag("OnlyPassing") if subset else False,
        namespace=_named(target.text("Namespace")),
        partition=_named(target.text("Partition")),
        peer=target.text("Peer"),
        subset=target.text("ServiceSubset"),
    )


def _named(scope: str) -> str:
    return "" if scope == _EVERYWHERE else scope
