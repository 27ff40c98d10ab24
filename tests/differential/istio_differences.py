"""Where the configuration from Istio's objects in files differs from what istiod sends for them, on purpose. Everything
else that differs is a bug of the translation.

1. Automatic mutual TLS: istiod sends it for every service of the mesh, to be used with the endpoints that have a
   sidecar (`security.istio.io/tlsMode: istio`). From files no endpoint has one, because there is no workload to ask.
   A cluster whose calls pass through has no TLS on either side: it is the caller's own connection.
"""

from dataclasses import replace
from typing import Any

from meshlib.explain.explanation import Explanation
from meshlib.model.cluster import Cluster
from meshlib.model.metadata import EMPTY_METADATA
from meshlib.model.snapshot import Snapshot

_SAME_THING = ("listener", "endpoint", "method", "url", "trials", "balancing", "filters", "reason")


def comparable_cluster(cluster: Cluster) -> Cluster:
    """The cluster without what says where it came from."""
    if cluster.type == "ORIGINAL_DST":
        cluster = replace(cluster, tls=None)
    return replace(cluster, metadata=EMPTY_METADATA, load_assignment=None, tls_matches=())


def comparable_explanation(explanation: Explanation, side: Snapshot) -> dict[str, Any]:
    """The decision, without names of listeners and with what was drawn from the endpoints left out."""
    found = explanation.to_dict()
    return {name: value for name, value in found.items() if name not in _SAME_THING}
