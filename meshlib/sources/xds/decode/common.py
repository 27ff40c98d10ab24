"""Small values that appear everywhere: durations, enums, percents, metadata, data sources, header options, `Any`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from meshlib.model.durations import LONGEST
from meshlib.model.headers import NO_MUTATIONS, HeaderMutations, HeaderValueOption
from meshlib.model.matchers import FractionalPercent
from meshlib.model.metadata import EMPTY_METADATA, EMPTY_STRUCT, Metadata, Struct, Value
from meshlib.model.operators import empty_operators, has_stray_percent, unknown_operators
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.validate import validate

_DENOMINATORS = (100, 10_000, 1_000_000)
_TYPED_STRUCTS = {
    "udpa.type.v1.TypedStruct": "udpa.type.v1.typed_struct_pb2",
    "xds.type.v3.TypedStruct": "xds.type.v3.typed_struct_pb2",
}


def duration(message: Any, name: str) -> float | None:
    """The seconds of a duration field, a hundred years at most; None when it is not set."""
    if not message.HasField(name):
        return None
    value = getattr(message, name)
    return min(float(value.seconds + value.nanos / 1e9), LONGEST)


def duration_or_off(message: Any, name: str, default: float | None) -> float | None:
    """As `duration`, for fields whose unset value is `default` and whose zero switches them off (None)."""
    seconds = duration(message, name)
    return default if seconds is None else seconds or None


def wrapped(message: Any, name: str, default: Any) -> Any:
    """The value of a wrapper field (`UInt32Value`, ...), `default` when it is not set."""
    return getattr(message, name).value if message.HasField(name) else default


def enum_name(message: Any, name: str, path: str) -> str:
    """The name of an enum field's value; numbers this version does not know are refused."""
    values = message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number
    number = getattr(message, name)
    if number not in values:
        raise ResourceError(join(path, name), f"is no known value: {number}")
    return str(values[number].name)


def fractional_percent(message: Any) -> FractionalPercent:
    """`envoy.type.v3.FractionalPercent` (its denominator is validated by its rules)."""
    return FractionalPercent(message.numerator, _DENOMINATORS[message.denominator])


_RUNTIME_FRACTION = fields(
    "default_value",
    harmless={"runtime_key": "only routes match by what a runtime says; elsewhere the default value counts"},
)


def runtime_fraction(ctx: Context, message: Any, path: str) -> FractionalPercent:
    """`RuntimeFractionalPercent`: its default value, as in a data plane without runtime."""
    ctx.check_fields(message, path, _RUNTIME_FRACTION)
    return fractional_percent(message.default_value)


def struct(message: Any) -> Struct:
    """A `google.protobuf.Struct`, frozen."""
    if not message.fields:
        return EMPTY_STRUCT
    return Struct(tuple(sorted((key, _value(item)) for key, item in message.fields.items())))


def _value(message: Any) -> Value:
    match message.WhichOneof("kind"):
        case "string_value":
            return str(message.string_value)
        case "number_value":
            return float(message.number_value)
        case "bool_value":
            return bool(message.bool_value)
        case "struct_value":
            return struct(message.struct_value)
        case "list_value":
            return tuple(_value(item) for item in message.list_value.values)
    return None


def metadata(message: Any) -> Metadata:
    """`filter_metadata` of a Metadata message; typed metadata is for extensions that are not here."""
    if not message.filter_metadata:
        return EMPTY_METADATA
    return Metadata(tuple(sorted((key, struct(value)) for key, value in message.filter_metadata.items())))


def data_source(ctx: Context, message: Any, path: str) -> tuple[str, bytes]:
    """A `DataSource` as (file name, bytes): one of them is empty. Environment variables are reported."""
    match message.WhichOneof("specifier"):
        case "filename":
            return message.filename, b""
        case "inline_bytes":
            return "", message.inline_bytes
        case "inline_string":
            return "", message.inline_string.encode()
        case "environment_variable":
            ctx.degraded(join(path, "environment_variable"), "environment variables are not read; taken as empty")
    return "", b""


_HEADER_OPTION = fields("header", "append", "append_action", "keep_empty_value")


def _header_option(ctx: Context, message: Any, path: str) -> HeaderValueOption:
    ctx.check_fields(message, path, _HEADER_OPTION)
    value = message.header.value
    if not value and message.header.raw_value:
        value = message.header.raw_value.decode("latin-1")
    action: Any = enum_name(message, "append_action", path)
    if message.HasField("append"):
        action = "APPEND_IF_EXISTS_OR_ADD" if message.append.value else "OVERWRITE_IF_EXISTS_OR_ADD"
    return HeaderValueOption(message.header.key.lower(), value, action, message.keep_empty_value)


def header_options(ctx: Context, messages: Any, path: str) -> tuple[HeaderValueOption, ...]:
    """A list of `HeaderValueOption`; pseudo headers and `host` may not be changed this way, as in Envoy."""
    options = []
    for index, message in enumerate(messages):
        where = f"{path}[{index}]"
        option = _header_option(ctx, message, where)
        _check_modifiable(option.name, where)
        if _can_be_filled_in(ctx, option, join(where, "header.value")):
            options.append(option)
    return tuple(options)


def _can_be_filled_in(ctx: Context, option: HeaderValueOption, path: str) -> bool:
    if has_stray_percent(option.value):
        raise ResourceError(path, f"{option.value!r}: a percent sign that is not part of a formatter is written %%")
    unknown = unknown_operators(option.value)
    if unknown:
        ctx.degraded(path, f"%{unknown[0]}% is not known to a client: the header {option.name!r} is left as it is")
    elif empty := empty_operators(option.value):
        ctx.degraded(path, f"%{empty[0]}% has no value for a client: it stands for nothing in {option.name!r}")
    return not unknown


def _check_modifiable(name: str, path: str) -> None:
    if name.startswith(":") or name == "host":
        raise ResourceError(path, f"{name!r} may not be modified; use host_rewrite or prefix_rewrite instead")


def mutations(ctx: Context, message: Any, direction: str, path: str) -> HeaderMutations:
    """`{direction}_headers_to_add` and `_to_remove` (direction: request, response) of a message."""
    added, removed = f"{direction}_headers_to_add", f"{direction}_headers_to_remove"
    add = header_options(ctx, getattr(message, added), join(path, added))
    names = tuple(name.lower() for name in getattr(message, removed))
    for index, name in enumerate(names):
        _check_modifiable(name, f"{join(path, removed)}[{index}]")
    return HeaderMutations(add, names) if add or names else NO_MUTATIONS


MUTATION_FIELDS = (
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
)


def type_name(type_url: str) -> str:
    """The message name of a type URL."""
    return type_url.rpartition("/")[2]


def message_class(name: str, module: str) -> Any:
    """The generated class of a message, imported on first use."""
    return getattr(importlib.import_module(module), name.rpartition(".")[2])


def parse(cls: Any, data: bytes, path: str) -> Any:
    """Bytes to a validated message of `cls`."""
    from google.protobuf.message import DecodeError

    try:
        message = cls.FromString(data)
    except DecodeError as error:
        raise ResourceError(path, f"is no valid {cls.DESCRIPTOR.full_name}: {error}") from None
    validate(message, path)
    return message


def unpack(message: Any, modules: Mapping[str, str], path: str) -> tuple[str, Any | None]:
    """The name of the message in an `Any`, and the message when `modules` (name → module) knows it, else None.

    A TypedStruct is read as the message it names, which is how control planes send what they have no types for.
    """
    name = type_name(message.type_url)
    if name in _TYPED_STRUCTS:
        return _unpack_typed_struct(message, _TYPED_STRUCTS[name], modules, path)
    if name not in modules:
        return name, None
    return name, parse(message_class(name, modules[name]), message.value, path)


def typed_struct(message: Any, path: str) -> Any | None:
    """The value of a TypedStruct in an `Any`, None when something else is in it."""
    module = _TYPED_STRUCTS.get(type_name(message.type_url))
    return None if module is None else parse(message_class("TypedStruct", module), message.value, path).value


def _unpack_typed_struct(message: Any, own_module: str, modules: Mapping[str, str], path: str) -> tuple[str, Any]:
    from google.protobuf import json_format

    typed = parse(message_class("TypedStruct", own_module), message.value, path)
    name = type_name(typed.type_url)
    if name not in modules:
        return name, None
    inner = message_class(name, modules[name])()
    value = json_format.MessageToDict(typed.value)
    for nested in _types_in(value):  # JSON is read by types that are known
        if nested in modules:
            message_class(nested, modules[nested])
    try:
        json_format.ParseDict(value, inner)
    except (json_format.ParseError, json_format.SerializeToJsonError) as error:
        raise ResourceError(join(path, "value"), f"is no valid {name}: {error}") from None
    validate(inner, join(path, "value"))
    return name, inner


def _types_in(value: Any) -> Iterator[str]:
    """The names of the messages packed anywhere in a value."""
    if isinstance(value, dict):
        if isinstance(found := value.get("@type"), str):
            yield type_name(found)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _types_in(item)
