"""Fields of Envoy's API that messages of xds-protos do not have yet: a second pool of descriptors that has them.

It copies the default pool file by file as it is asked, and adds to the copies. In the default pool's messages such a
field is an unknown one, which is carried along. Sources: `route_components.proto` of `envoy.config.route.v3`,
`ratelimit.proto` of `envoy.extensions.common.ratelimit.v3`, `local_rate_limit.proto`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple, cast

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

_ROUTE = "envoy.config.route.v3"
ROUTE_MATCH = f"{_ROUTE}.RouteMatch"
RATE_LIMIT = f"{_ROUTE}.RateLimit"
_ACTION = f"{RATE_LIMIT}.Action"
_COMMON = "envoy.extensions.common.ratelimit.v3"
LOCAL_RATE_LIMIT = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


class _Field(NamedTuple):
    """`of`: its type, a scalar's or a message's full name. One in a `oneof` of its message says which."""

    name: str
    number: int
    of: str
    oneof: str = ""
    repeated: bool = False


_SCALARS = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
}
_LABELS = (FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED)
_NEW_ENUMS = {f"{RATE_LIMIT}.XRateLimitOption": ("UNSPECIFIED", "OFF", "DRAFT_VERSION_03")}
_FILES: dict[str, tuple[str, ...]] = {
    "envoy/config/route/v3/route_components.proto": (
        "envoy/type/matcher/v3/address.proto",
        "envoy/type/v3/ratelimit_unit.proto",
    ),
    "envoy/extensions/common/ratelimit/v3/ratelimit.proto": (),
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto": (),
}
"""The files that are added to, with those that the types of the added fields stand in; `_MODULES` registers these."""
_MODULES = ("envoy.type.matcher.v3.address_pb2", "envoy.type.v3.ratelimit_unit_pb2")
_NEW_MESSAGES: dict[str, tuple[_Field, ...]] = {
    f"{_ROUTE}.CookieMatcher": (
        _Field("name", 1, "string"),
        _Field("string_match", 2, "envoy.type.matcher.v3.StringMatcher"),
        _Field("invert_match", 3, "bool"),
    ),
    f"{_ACTION}.RemoteAddressMatch": (
        _Field("descriptor_value", 1, "string"),
        _Field("descriptor_key", 2, "string"),
        _Field("default_value", 3, "string"),
        _Field("address_matcher", 4, "envoy.type.matcher.v3.AddressMatcher"),
    ),
    f"{RATE_LIMIT}.Override.RateLimitOverride": (
        _Field("requests_per_unit", 1, "uint32"),
        _Field("unit", 2, "enum envoy.type.v3.RateLimitUnit"),
    ),
}
_ADDED: dict[str, tuple[_Field, ...]] = {
    ROUTE_MATCH: (_Field("cookies", 17, f"{_ROUTE}.CookieMatcher", repeated=True),),
    RATE_LIMIT: (_Field("x_ratelimit_option", 7, f"enum {RATE_LIMIT}.XRateLimitOption"),),
    _ACTION: (_Field("remote_address_match", 13, f"{_ACTION}.RemoteAddressMatch", "action_specifier"),),
    f"{_ACTION}.GenericKey": (_Field("default_value", 3, "string"),),
    f"{_ACTION}.HeaderValueMatch": (_Field("default_value", 5, "string"),),
    f"{_ACTION}.QueryParameterValueMatch": (_Field("default_value", 5, "string"),),
    f"{RATE_LIMIT}.Override": (
        _Field("rate_limit", 2, f"{RATE_LIMIT}.Override.RateLimitOverride", "override_specifier"),
    ),
    f"{RATE_LIMIT}.HitsAddend": (_Field("is_negative_hits", 3, "bool"),),
    f"{_COMMON}.LocalRateLimitDescriptor": (_Field("shadow_mode", 3, "bool"),),
    LOCAL_RATE_LIMIT: (_Field("enable_retry_after_header", 19, "bool"),),
}


class _WithAdded:
    """The files of the default pool, with the fields that they lack."""

    def FindFileByName(self, name: str) -> FileDescriptorProto:  # noqa: N802  # protobuf's name
        file = FileDescriptorProto()
        descriptor_pool.Default().FindFileByName(name).CopyToProto(file)
        if name in _FILES:
            _add(file)
        return file

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptorProto:  # noqa: N802
        return self.FindFileByName(descriptor_pool.Default().FindFileContainingSymbol(symbol).name)


def _add(file: FileDescriptorProto) -> None:
    """Whatever of the file's messages the installed xds-protos does not have."""
    for name, words in _of(file, _NEW_ENUMS):
        parent, _, short = name.rpartition(".")
        enums = _message(file, parent).enum_type
        if all(enum.name != short for enum in enums):
            values = enums.add(name=short).value
            for number, word in enumerate(words):
                values.add(name=word, number=number)
    for name, fields in _of(file, _NEW_MESSAGES):
        parent, _, short = name.rpartition(".")
        messages = file.message_type if parent == file.package else _message(file, parent).nested_type
        if all(message.name != short for message in messages):
            _add_fields(messages.add(name=short), fields)
    for name, fields in _of(file, _ADDED):
        _add_fields(_message(file, name), fields)
    file.dependency.extend(other for other in _FILES[file.name] if other not in file.dependency)


def _of(file: FileDescriptorProto, table: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((name, found) for name, found in table.items() if name.startswith(f"{file.package}."))


def _message(file: FileDescriptorProto, name: str) -> DescriptorProto:
    first, *rest = name.removeprefix(f"{file.package}.").split(".")
    found = next(message for message in file.message_type if message.name == first)
    for part in rest:
        found = next(message for message in found.nested_type if message.name == part)
    return found


def _add_fields(message: DescriptorProto, fields: Iterable[_Field]) -> None:
    for field in fields:
        if any(known.name == field.name for known in message.field):
            continue  # the installed xds-protos has it
        added = message.field.add(name=field.name, number=field.number, label=_LABELS[field.repeated])
        scalar = _SCALARS.get(field.of)
        if scalar is not None:
            added.type = scalar
        else:
            kind, _, name = field.of.rpartition(" ")
            added.type = FieldDescriptorProto.TYPE_ENUM if kind else FieldDescriptorProto.TYPE_MESSAGE
            added.type_name = f".{name}"
        if field.oneof:
            added.oneof_index = [oneof.name for oneof in message.oneof_decl].index(field.oneof)


@cache
def _pool() -> Any:
    for module in _MODULES:
        importlib.import_module(module)
    return descriptor_pool.DescriptorPool(_WithAdded())


def newest(descriptor: Descriptor) -> Descriptor:
    """The message's descriptor with the fields that are added to it; itself where there are none."""
    if descriptor.full_name not in _ADDED:
        return descriptor
    return cast(Descriptor, _pool().FindMessageTypeByName(descriptor.full_name))


def with_added(message: Message) -> Any:
    """The message read anew, so that added fields are fields of it."""
    return _class_of(message.DESCRIPTOR.full_name).FromString(message.SerializeToString())


def parse_json(value: Any, cls: type[Message]) -> Message:
    """`json_format.ParseDict`, which also takes the added fields. Raises as it does."""
    try:
        return json_format.ParseDict(value, cls())
    except json_format.ParseError:  # of an added field, or for good
        newer = _class_of(cls.DESCRIPTOR.full_name)
        return cls.FromString(json_format.ParseDict(value, newer(), descriptor_pool=_pool()).SerializeToString())


@cache
def _class_of(name: str) -> type[Message]:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))
