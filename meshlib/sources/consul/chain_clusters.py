"""The resolver nodes of a discovery chain as clusters (`agent/xds/clusters.go`): one for each target routed to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from meshlib.model.cluster import Cluster
from meshlib.model.lb import LbPolicy, LeastRequest, Maglev, Random, RingHash, RoundRobin, UnsupportedLbPolicy
from meshlib.sources.consul.chain import Chain
from meshlib.sources.consul.fields import Fields
from meshlib.sources.consul.query import Target

CLUSTER_DEFAULTS = Cluster("", healthy_panic_threshold=0.0)
"""As in Consul's configuration of Envoy no panic: what Consul calls critical gets nothing, were it all there is."""


@dataclass(frozen=True, slots=True)
class ChainCluster:
    """A cluster and whose instances are its endpoints: those of `targets[0]`, else of the next, and so on."""

    cluster: Cluster
    targets: tuple[Target, ...]


def chain_clusters(chain: Chain, home: str, defaults: Cluster = CLUSTER_DEFAULTS) -> dict[str, ChainCluster]:
    """The clusters of a chain by target. `defaults` are the policies they have where the chain says nothing; names are
    those of `Target.cluster_name`.
    """
    return dict(_clusters(chain, home, defaults))


def _clusters(chain: Chain, home: str, defaults: Cluster) -> Iterator[tuple[str, ChainCluster]]:
    for name, node in chain.nodes.items():
        if node.text("Type") != "resolver":
            continue
        resolver = chain.resolver(name, node)
        cluster = replace(
            defaults,
            name=chain.targets[resolver.target].cluster_name(home),
            type="EDS",
            eds_service_name="",
            load_assignment=None,
            http2=chain.protocol in ("http2", "grpc"),
            connect_timeout=resolver.connect_timeout or defaults.connect_timeout,
            lb_policy=_lb_policy(node.object("LoadBalancer")) or defaults.lb_policy,
        )
        names = (resolver.target, *resolver.failover)
        yield resolver.target, ChainCluster(cluster, tuple(chain.targets[name] for name in names))


def _lb_policy(said: Fields | None) -> LbPolicy | None:
    if said is None:
        return None
    said.only("Policy", "RingHashConfig", "LeastRequestConfig", "HashPolicies")
    match said.text("Policy"):
        case "":
            return None
        case "round_robin":
            return RoundRobin()
        case "random":
            return Random()
        case "least_request":
            config = said.object("LeastRequestConfig")
            return LeastRequest(max(2, config.integer("ChoiceCount", 2))) if config else LeastRequest()
        case "ring_hash":
            return _ring(said.object("RingHashConfig"))
        case "maglev":
            return Maglev()
        case other:
            said.degraded("Policy", f"{other!r} is not supported: requests are balanced round robin")
            return UnsupportedLbPolicy(other)


def _ring(said: Fields | None) -> RingHash:
    if said is None:
        return RingHash()
    said.only("MinimumRingSize", "MaximumRingSize")
    default = RingHash()
    minimum = said.integer("MinimumRingSize") or default.minimum_ring_size
    maximum = said.integer("MaximumRingSize") or default.maximum_ring_size
    return RingHash(min(minimum, maximum), maximum)
