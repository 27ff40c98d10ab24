"""Validates a message and everything below it by the rules of its proto files, as Envoy does before it uses one.

The plan of a message type is compiled once, from its descriptor. Also refused, because nothing can be made of them:
durations that are negative or out of protobuf's range, and numbers in a `Struct` that are not numbers in JSON.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.context import join
from meshlib.sources.xds.decode.rules import Check, field_checks
from meshlib.sources.xds.decode.unknown import unknown_fields

_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_TLS = "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext"
_NOT_ASKED = frozenset(
    {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.stat_prefix",
        "envoy.config.route.v3.VirtualHost.name",
        f"{_TLS}.CombinedCertificateValidationContext.validation_context_sds_secret_config",
        "envoy.config.route.v3.RateLimit.Action.MetaData.source",
    }
)
"""What istiod leaves out for gRPC clients and servers, who do not ask for it: names for metrics, and a secret by SDS
where a certificate provider stands in for it. And an enum that has more values than xds-protos knows.
"""
_GROWING = frozenset({"envoy.config.route.v3.RateLimit.Action", "envoy.config.route.v3.RateLimit.Override"})
_MAX_DURATION_SECONDS = 315_576_000_000


@dataclass(frozen=True, slots=True)
class _Field:
    """How to validate one field when it is set. `kind`: message, wrapper, duration, struct, plain."""

    kind: str
    is_repeated: bool
    is_map: bool
    checks: tuple[Check, ...]
    item_checks: tuple[Check, ...]
    key_checks: tuple[Check, ...]
    is_skipped: bool


@dataclass(frozen=True, slots=True)
class _Message:
    required: tuple[str, ...]
    oneofs: tuple[tuple[str, str], ...]
    always: tuple[tuple[str, tuple[Check, ...]], ...]
    fields: dict[str, _Field]


def validate(message: Any, path: str = "") -> None:
    """Raise `ResourceError` for the first rule that does not hold, with the field's path below `path`."""
    plan = _plan(message.DESCRIPTOR)
    for name in plan.required:
        if not message.HasField(name):
            raise ResourceError(join(path, name), "is required")
    for name, members in plan.oneofs:
        if message.WhichOneof(name) is None and not _is_newer(message):
            raise ResourceError(path, f"one of {members} is required")
    for name, checks in plan.always:
        _apply(checks, getattr(message, name), join(path, name))
    for descriptor, value in message.ListFields():
        field = plan.fields.get(descriptor.name)
        if field is not None:
            _validate_field(field, value, join(path, descriptor.name))


def _is_newer(message: Any) -> bool:
    """Whether a member of its oneof may be one that xds-protos does not have yet: for its decoder to tell."""
    return message.DESCRIPTOR.full_name in _GROWING and any(unknown_fields(message))


def _validate_field(field: _Field, value: Any, path: str) -> None:
    if field.is_map:
        _apply(field.checks, value, path)
        for key in value:
            _apply(field.key_checks, key, path)
            _validate_value(field, value[key], f'{path}["{key}"]', field.item_checks)
    elif field.is_repeated:
        _apply(field.checks, value, path)
        for index, item in enumerate(value):
            _validate_value(field, item, f"{path}[{index}]", field.item_checks)
    else:
        _validate_value(field, value, path, field.checks)


def _validate_value(field: _Field, value: Any, path: str, checks: tuple[Check, ...]) -> None:
    match field.kind:
        case "message":
            if not field.is_skipped:
                validate(value, path)
        case "wrapper":
            value = value.value
        case "duration":
            _check_duration(value, path)
        case "struct":
            _check_struct(value, path)
    _apply(checks, value, path)


def _apply(checks: tuple[Check, ...], value: Any, path: str) -> None:
    for check in checks:
        reason = check(value)
        if reason is not None:
            raise ResourceError(path, reason)


def _check_duration(value: Any, path: str) -> None:
    if value.seconds < 0 or value.nanos < 0:
        raise ResourceError(path, "a duration must not be negative")
    if value.seconds > _MAX_DURATION_SECONDS or value.nanos > 999_999_999:
        raise ResourceError(path, "a duration must be below 10 000 years, its nanoseconds below 1 000 000 000")


def _check_struct(value: Any, path: str) -> None:
    values = value.fields.items() if hasattr(value, "fields") else enumerate(value.values)
    for key, item in values:
        where = f'{path}["{key}"]'
        kind = item.WhichOneof("kind")
        if kind == "number_value" and not math.isfinite(item.number_value):
            raise ResourceError(where, "must be a finite number")
        if kind in {"struct_value", "list_value"}:
            _check_struct(getattr(item, kind), where)


@cache
def _plan(descriptor: Any) -> _Message:
    from validate import validate_pb2

    def rules_of(field: Any) -> Any:
        return field.GetOptions().Extensions[validate_pb2.rules]

    required, always, fields = [], [], {}
    for field in descriptor.fields:
        rules = rules_of(field)
        if (
            _is_required(rules) and field.containing_oneof is None and field.full_name not in _NOT_ASKED
        ):  # of a oneof's member it is said once it is chosen
            required.append(field.name)
        compiled = _compile(field, rules)
        if not field.has_presence and not compiled.is_map and compiled.checks:
            always.append((field.name, compiled.checks))
            compiled = _without_checks(compiled)
        if compiled.kind != "plain" or compiled.checks or compiled.item_checks or compiled.is_map:
            fields[field.name] = compiled
    oneofs = tuple(
        (oneof.name, ", ".join(member.name for member in oneof.fields))
        for oneof in descriptor.oneofs
        if oneof.GetOptions().Extensions[validate_pb2.required]
    )
    return _Message(tuple(required), oneofs, tuple(always), fields)


def _is_required(rules: Any) -> bool:
    kind = rules.WhichOneof("type")
    by_type = kind in {"duration", "any", "timestamp"} and getattr(rules, kind).required
    return bool(by_type or (rules.HasField("message") and rules.message.required))


def _without_checks(field: _Field) -> _Field:
    return _Field(
        field.kind, field.is_repeated, field.is_map, (), field.item_checks, field.key_checks, field.is_skipped
    )


def _compile(field: Any, rules: Any) -> _Field:
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    value = field.message_type.fields_by_name["value"] if is_map else field
    items = rules.map.values if is_map else rules.repeated.items
    return _Field(
        kind=_kind(value),
        is_repeated=is_repeated(field),
        is_map=is_map,
        checks=tuple(field_checks(rules, _numbers(value))) if field.full_name not in _NOT_ASKED else (),
        item_checks=tuple(field_checks(items, _numbers(value))),
        key_checks=tuple(field_checks(rules.map.keys, None)) if is_map else (),
        is_skipped=rules.message.skip,
    )


def is_repeated(field: Any) -> bool:
    """Whether a field descriptor is of a repeated field, asked as protobuf 6 and 7 want it."""
    found = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if found is None else found)


def _numbers(field: Any) -> dict[int, Any] | None:
    return dict(field.enum_type.values_by_number) if field.enum_type is not None else None


def _kind(field: Any) -> str:
    message = field.message_type
    if message is None:
        return "plain"
    name = message.full_name
    if name in _WRAPPERS:
        return "wrapper"
    special = {
        "google.protobuf.Duration": "duration",
        "google.protobuf.Struct": "struct",
        "google.protobuf.ListValue": "struct",
        "google.protobuf.Any": "plain",  # validated when it is unpacked
        "google.protobuf.Timestamp": "plain",
    }
    return special.get(name, "message")
