"""Where the configuration from Istio's objects in files differs from what istiod sends for them, on purpose. Everything
else that differs is a bug of the translation.

1. Automatic mutual TLS: istiod sends it for every service of the mesh, to be used with the endpoints that have a
   sidecar (`security.istio.io/tlsMode: istio`). From files no endpoint has one, because there is no workload to ask.
   A cluster whose calls pass through has no TLS on either side: it is the caller's own connection.
2. A call that passes through does so by istiod's `virtualOutbound`, or by a port's `allow_any`; from files a port that
   no object names has no listener at all, and `Mesh(unknown_hosts=...)` decides.
3. istiod serves VirtualServices for hosts that no service has on port 80, if any service has that port, which in a
   cluster is so; from files on port 80 in any case.
4. To a proxyless client istiod sends of a cluster's policies only ROUND_ROBIN (the default there), LEAST_REQUEST,
   consistent hashing, `http2MaxRequests` and ISTIO_MUTUAL; a service that is resolved by DNS or not at all has no
   endpoints, and wildcard hosts are not served. From files it has everything.
5. Ports of TLS that is passed through (HTTPS, TLS): istiod gives a sidecar routes by server name, so that an `https`
   call is balanced by the service's cluster. From files such a call passes through.
6. A service that is not exported to the caller's namespace has a cluster from istiod if a VirtualService that is
   visible names it as a destination. From files it has none. Not generated.
7. From files a service has the listener of a proxyless client besides, found by its name first: with the same routes.
"""

from dataclasses import replace
from typing import Any

from meshlib.explain.explanation import Explanation
from meshlib.model.cluster import Cluster
from meshlib.model.metadata import EMPTY_METADATA

_NAMES = ("listener", "route_configuration", "reason")
_DRAWN = ("endpoint",)


def comparable_cluster(cluster: Cluster) -> Cluster:
    """The cluster without what says where it came from."""
    if cluster.type == "ORIGINAL_DST":
        cluster = replace(cluster, tls=None)
    return replace(cluster, metadata=EMPTY_METADATA, load_assignment=None, tls_matches=())


def comparable_explanation(explanation: Explanation) -> dict[str, Any]:
    """The decision without names that only say where it was found. The endpoints stand in `balancing`, in an order of
    their own; which one is drawn of them depends on that order.
    """
    found = explanation.to_dict()
    if found["pass_through"]:
        return {"pass_through": True}
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
    return {name: value for name, value in found.items() if name != "thresholds"}


def _without_order(balancing: dict[str, Any]) -> dict[str, Any]:
    priorities = [
        {**priority, "endpoints": sorted(priority["endpoints"], key=str)} for priority in balancing["priorities"]
    ]
    return {**balancing, "priorities": priorities}
