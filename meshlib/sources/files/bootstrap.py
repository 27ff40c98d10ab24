"""What an Envoy bootstrap says about traffic: its `static_resources`, and the static layers of its runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from google.protobuf.message import Message

from meshlib.model.endpoint import Locality
from meshlib.model.zones import Local
from meshlib.sources.files.located import FieldPath
from meshlib.sources.files.schema import Problem
from meshlib.sources.files.type_registry import CLUSTER, LISTENER, RUNTIME, message_class

# These are about the Envoy process (who it is, what it shows), not about traffic.
_ABOUT_THE_PROCESS = frozenset((
    "node", "node_context_params", "admin", "flags_path", "stats_sinks", "stats_config", "stats_flush_interval",
    "stats_flush_on_admin", "stats_eviction_interval", "histogram_bucket_settings", "watchdog", "watchdogs",
    "header_prefix", "stats_server_version_override", "enable_dispatcher_stats", "application_log_config",
    "perf_tracing_file_path", "memory_allocator_manager", "static_resources", "cluster_manager",
    "layered_runtime",
))  # fmt: skip
_REASONS = {
    "dynamic_resources": "dynamic resources are not fetched from here; only static_resources are read",
    "overload_manager": "overload actions are not applied",
    "hds_config": "health checks are not delegated",
}


def static_resources(bootstrap: Any) -> Iterator[tuple[str, Message, FieldPath]]:
    """Type, message and place of each static listener and cluster, and of each static layer of the runtime."""
    for index, listener in enumerate(bootstrap.static_resources.listeners):
        yield LISTENER, listener, ("static_resources", "listeners", index)
    for index, cluster in enumerate(bootstrap.static_resources.clusters):
        yield CLUSTER, cluster, ("static_resources", "clusters", index)
    for index, layer in enumerate(bootstrap.layered_runtime.layers):
        if layer.WhichOneof("layer_specifier") == "static_layer":
            yield RUNTIME, _runtime(layer), ("layered_runtime", "layers", index)


def _runtime(layer: Any) -> Message:
    message: Any = (message_class(RUNTIME) or Message)()
    message.name = layer.name
    message.layer.CopyFrom(layer.static_layer)
    return cast(Message, message)


def local(bootstrap: Any) -> Local:
    """Where the process is, and of which cluster it is an endpoint."""
    place = bootstrap.node.locality
    where = Locality(place.region, place.zone, place.sub_zone)
    return Local(where, bootstrap.cluster_manager.local_cluster_name, bootstrap.node.cluster)


def not_applied(bootstrap: Message) -> Iterator[Problem]:
    """The set fields that would change traffic and are not used."""
    for field, _ in bootstrap.ListFields():
        if field.name not in _ABOUT_THE_PROCESS:
            reason = _REASONS.get(field.name, f"{field.name} is not applied")
            yield Problem((field.name,), reason, severity="degraded")
    layers: Any = getattr(bootstrap, "layered_runtime")  # noqa: B009 - likewise
    for index, layer in enumerate(layers.layers):
        kind = layer.WhichOneof("layer_specifier")
        if kind != "static_layer":
            where = ("layered_runtime", "layers", index, kind)
            yield Problem(where, "only static layers of the runtime are read", severity="degraded")
    secrets: Any = getattr(bootstrap, "static_resources")  # noqa: B009 - Message has no such attribute for the type checker
    if secrets.secrets:
        yield Problem(("static_resources", "secrets"), "static secrets are not applied", severity="degraded")


def name_listener(listener: Any) -> str:
    """Names a listener that has no name by its address, as Istio does (`0.0.0.0_8080`); Envoy would draw a UUID."""
    address = listener.address
    if address.HasField("socket_address"):
        listener.name = f"{address.socket_address.address}_{address.socket_address.port_value}"
    elif address.HasField("pipe"):
        listener.name = address.pipe.path
    return str(listener.name)
