"""Messages of Envoy's API that xds-protos does not have yet, made from their fields when it does not.

Sources: `random_subsetting.proto` (gRFC A68), `load_aware_locality.proto`, `peak_ewma.proto` of
`envoy.extensions.load_balancing_policies`.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

_POLICIES = "envoy.extensions.load_balancing_policies."
_WRAPPERS = "google/protobuf/wrappers.proto"
_DURATION = "google/protobuf/duration.proto"
_CLUSTER = "envoy/config/cluster/v3/cluster.proto"
_UINT32, _DOUBLE = "google.protobuf.UInt32Value", "google.protobuf.DoubleValue"
_BOOL = "google.protobuf.BoolValue"
_SECONDS, _CHILD = "google.protobuf.Duration", "envoy.config.cluster.v3.LoadBalancingPolicy"
_IMPORTS = ("google.protobuf.wrappers_pb2", "google.protobuf.duration_pb2", "envoy.config.cluster.v3.cluster_pb2")

_PEAK_EWMA = (
    (1, "decay_time", _SECONDS),
    (2, "aggregation_interval", _SECONDS),
    (3, "max_samples_per_host", _UINT32),
    (4, "default_rtt", _SECONDS),
    (5, "penalty_value", _DOUBLE),
)
_FIELDS: dict[str, tuple[tuple[int, str, str], ...]] = {
    f"{_POLICIES}random_subsetting.v3.RandomSubsetting": ((1, "subset_size", _UINT32), (2, "child_policy", _CHILD)),
    f"{_POLICIES}load_aware_locality.v3.LoadAwareLocality": (
        (1, "endpoint_picking_policy", _CHILD),
        (2, "weight_update_period", _SECONDS),
        (3, "metric_names_for_computing_utilization", ""),
        (4, "utilization_variance_threshold", _DOUBLE),
        (5, "smoothing_time_constant", _SECONDS),
        (6, "remote_probe_fraction", _DOUBLE),
        (7, "weight_expiration_period", _SECONDS),
        (8, "enable_oob_load_report", _BOOL),
        (9, "oob_reporting_period", _SECONDS),
    ),
    f"{_POLICIES}peak_ewma.v3.PeakEwma": _PEAK_EWMA,
    f"{_POLICIES}peak_ewma.v3alpha.PeakEwma": _PEAK_EWMA,
}
"""Number, name and message type of the fields; without a type it is a repeated string."""


def is_added(name: str) -> bool:
    """Whether a full message name is one of these."""
    return name in _FIELDS


@cache
def added_message(name: str) -> Any:
    """The class of one of these messages: xds-protos' own where it has it."""
    package, _, short = name.rpartition(".")
    try:
        return getattr(importlib.import_module(f"{package}.{package.split('.')[-2]}_pb2"), short)
    except ImportError:
        return message_factory.GetMessageClass(_registered(name, package, short))


def _registered(name: str, package: str, short: str) -> Any:
    for module in _IMPORTS:  # what the fields' types need to be registered
        importlib.import_module(module)
    file = FileDescriptorProto(name=f"meshlib/{name}.proto", package=package, syntax="proto3")
    file.dependency.extend((_WRAPPERS, _DURATION, _CLUSTER))
    message = file.message_type.add(name=short)
    for number, field, of_type in _FIELDS[name]:
        _add_field(message, number, field, of_type)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMessageTypeByName(name)


def _add_field(message: Any, number: int, name: str, of_type: str) -> None:
    if of_type:
        kind, label = FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.LABEL_OPTIONAL
        message.field.add(name=name, number=number, type=kind, label=label, type_name=f".{of_type}")
    else:
        kind, label = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_REPEATED
        message.field.add(name=name, number=number, type=kind, label=label)


def __getattr__(short: str) -> Any:
    """The class by its short name, as of a generated module."""
    found = next((name for name in _FIELDS if name.endswith(f".{short}")), None)
    if found is None:
        raise AttributeError(short)
    return added_message(found)
