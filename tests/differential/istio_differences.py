"""Where the configuration from Istio's objects in files differs from what istiod sends for them, on purpose. Everything
else that differs is a bug of the translation.

1. Automatic mutual TLS: istiod sends it for every service of the mesh, to be used with the endpoints that have a
   sidecar (a `serviceAccount`, or the label `security.istio.io/tlsMode: istio`). From files a service has it if one of
   its endpoints does. A cluster whose calls pass through has no TLS on either side: it is the caller's own connection.
2. A call that passes through does so by istiod's `virtualOutbound`, or by a port's `allow_any`; from files a port that
   no object names has no listener at all, and `Mesh(unknown_hosts=...)` decides. Under REGISTRY_ONLY both refuse it,
   with 502 or for want of an endpoint: on a port without a protocol, whose services all have addresses, not alike.
3. istiod serves VirtualServices for hosts that no service has on port 80, if any service has that port, which in a
   cluster is so; from files on port 80 in any case.
4. To a proxyless client istiod sends of a cluster's policies only ROUND_ROBIN (the default there), LEAST_REQUEST,
   consistent hashing, `http2MaxRequests` and ISTIO_MUTUAL; a service that is resolved by DNS or not at all has no
   endpoints, and wildcard hosts are not served. From files it has everything.
5. Ports of TLS that is passed through (HTTPS, TLS): istiod gives a sidecar routes by server name, so that an `https`
   call is balanced by the service's cluster. From files such a call passes through.
6. Where `failoverPriority` divides the endpoints of a service that is resolved by DNS, istiod of 2026-08 ends in a
   panic. From files they are divided. Not generated.
7. A service with several addresses: istiod routes requests for one of them, which one is chance, and lists every
   endpoint as often as there are addresses. From files requests for all of them are routed. Of several hosts with the
   same address one has it; without a VirtualService it is chance which, from files the first by name. Not generated.
8. From files a service has the listener of a proxyless client besides, found by its name first: with the same routes.
"""

from dataclasses import replace
from typing import Any

from meshlib.explain.explanation import Explanation
from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.metadata import EMPTY_METADATA
from meshlib.model.route import VirtualHost

_NAMES = ("listener", "route_configuration", "reason")
_DRAWN = ("endpoint",)
_OF_POLICIES = ("thresholds", "chosen_because")
_REFUSING = ("block_all", "BlackHoleCluster")


def comparable_cluster(cluster: Cluster) -> Cluster:
    """The cluster without what says where it came from."""
    tls = None if cluster.type == "ORIGINAL_DST" else comparable_tls(cluster.tls)
    cluster = replace(cluster, tls=tls)
    return replace(cluster, metadata=EMPTY_METADATA, load_assignment=None, tls_matches=())


def comparable_tls(tls: UpstreamTls | None) -> UpstreamTls | None:
    """The TLS without the place in the resource of what makes it unusable."""
    return tls and replace(tls, unusable=tls.unusable.rpartition(": ")[2])


def comparable_host(host: VirtualHost) -> VirtualHost:
    """The virtual host without what says where its routes came from."""
    routes = tuple(replace(route, metadata=EMPTY_METADATA) for route in host.routes)
    return replace(host, routes=routes, domains=tuple(sorted(host.domains)))


def comparable_explanation(explanation: Explanation) -> dict[str, Any]:
    """The decision without names that only say where it was found. The endpoints stand in `balancing`, in an order of
    their own; which one is drawn of them depends on that order.
    """
    found = explanation.to_dict()
    if found["pass_through"]:
        return {"pass_through": True}
    if found["virtual_host"] in _REFUSING:
        return {"refused": True}
    if found["balancing"]:
        found["balancing"] = _without_order(found["balancing"])
    return {name: value for name, value in found.items() if name not in (*_NAMES, *_DRAWN)}


def comparable_to_proxyless(explanation: Explanation) -> dict[str, Any]:
    """The decision without what istiod does not say of clusters to a proxyless client."""
    found = comparable_explanation(explanation)
    if found.get("timeouts"):
        found["timeouts"] = {"route": found["timeouts"]["route"], "per_try": found["timeouts"]["per_try"]}
    if found.get("balancing"):
        found["balancing"] = [
            (endpoint["address"], endpoint["weight"], endpoint["locality"])
            for priority in found["balancing"]["priorities"]
            for endpoint in priority["endpoints"]
        ]
    return {name: value for name, value in found.items() if name not in _OF_POLICIES}


def _without_order(balancing: dict[str, Any]) -> dict[str, Any]:
    priorities = [
        {**priority, "endpoints": sorted(priority["endpoints"], key=str)} for priority in balancing["priorities"]
    ]
    return {**balancing, "priorities": priorities}
