"""The xDS source: a client of the xDS v3 transport protocol (ADS, state of the world and delta).

Everything that decides is sans-I/O and lives in ``session`` and the modules under it: values in, values out, a manual
clock in the tests. ``transport`` drives it with one daemon thread and grpcio, and is imported on demand only, because
it needs the ``xds`` extra.
"""

from meshlib.sources.xds.bootstrap import Bootstrap, BootstrapError, Credentials, XdsServer, load_bootstrap
from meshlib.sources.xds.node import Locality, Node, sidecar_node

__all__ = [
    "Bootstrap",
    "BootstrapError",
    "Credentials",
    "Locality",
    "Node",
    "XdsServer",
    "load_bootstrap",
    "sidecar_node",
]
