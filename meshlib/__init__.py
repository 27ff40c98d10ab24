"""meshlib: an embedded service mesh for Python.

    from meshlib import Mesh

    mesh = Mesh.from_file("conf/")                 # or Mesh.from_xds(), Mesh.static({...})
    with mesh.http.client("payments") as client:
        client.get("/charge")

Importing meshlib imports no third-party package; each is imported when first needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.context import call_metadata, on_lane
    from meshlib.decorators.attempt import Attempt, current_attempt
    from meshlib.errors import (
        CallError,
        CallFailure,
        CircuitOpenError,
        ClusterNotFoundError,
        ConfigurationError,
        MeshError,
        NoHealthyUpstreamError,
        NoRouteError,
        NotReadyError,
        RateLimitedError,
        UpstreamConnectError,
        UpstreamOverflowError,
        UpstreamProtocolError,
        UpstreamResetError,
        UpstreamTimeoutError,
    )
    from meshlib.flags import ResponseFlag
    from meshlib.mesh import Mesh
    from meshlib.model.cluster import CircuitBreaker
    from meshlib.policy.fault import Fault
    from meshlib.policy.notation import local_limit
    from meshlib.policy.shared_limit import SharedRateLimit

_HOMES = {
    "Attempt": "decorators.attempt",
    "Mesh": "mesh",
    "ResponseFlag": "flags",
    "CircuitBreaker": "model.cluster",
    "Fault": "policy.fault",
    "current_attempt": "decorators.attempt",
    "SharedRateLimit": "policy.shared_limit",
    "local_limit": "policy.notation",
    "call_metadata": "context",
    "on_lane": "context",
}
__all__ = [
    "Attempt",
    "CallError",
    "CallFailure",
    "CircuitBreaker",
    "CircuitOpenError",
    "ClusterNotFoundError",
    "ConfigurationError",
    "Fault",
    "Mesh",
    "MeshError",
    "NoHealthyUpstreamError",
    "NoRouteError",
    "NotReadyError",
    "RateLimitedError",
    "ResponseFlag",
    "SharedRateLimit",
    "UpstreamConnectError",
    "UpstreamOverflowError",
    "UpstreamProtocolError",
    "UpstreamResetError",
    "UpstreamTimeoutError",
    "call_metadata",
    "current_attempt",
    "local_limit",
    "on_lane",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        value = getattr(import_module(f"meshlib.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'meshlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
