"""Fields of Envoy's API that messages of xds-protos do not have yet: a second pool of descriptors that has them.

It copies the default pool file by file as it is asked, and adds to the copies. In the default pool's messages such a
field is an unknown one, which is carried along. Source: `route_components.proto` of `envoy.config.route.v3`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

ROUTE_MATCH = "envoy.config.route.v3.RouteMatch"
_FILE = "envoy/config/route/v3/route_components.proto"
_COOKIE = "CookieMatcher"
_COOKIE_FIELDS = (
    ("name", 1, FieldDescriptorProto.TYPE_STRING, None),
    ("string_match", 2, FieldDescriptorProto.TYPE_MESSAGE, ".envoy.type.matcher.v3.StringMatcher"),
    ("invert_match", 3, FieldDescriptorProto.TYPE_BOOL, None),
)


class _WithAdded:
    """The files of the default pool, with the fields that they lack."""

    def FindFileByName(self, name: str) -> FileDescriptorProto:  # noqa: N802  # protobuf's name
        file = FileDescriptorProto()
        descriptor_pool.Default().FindFileByName(name).CopyToProto(file)
        if name == _FILE:
            _add_cookies(file)
        return file

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptorProto:  # noqa: N802
        return self.FindFileByName(descriptor_pool.Default().FindFileContainingSymbol(symbol).name)


def _add_cookies(file: FileDescriptorProto) -> None:
    match = next(message for message in file.message_type if message.name == "RouteMatch")
    if any(field.name == "cookies" for field in match.field):
        return  # the installed xds-protos has them
    cookie = file.message_type.add(name=_COOKIE)
    for name, number, kind, of_type in _COOKIE_FIELDS:
        label = FieldDescriptorProto.LABEL_OPTIONAL
        cookie.field.add(name=name, number=number, type=kind, label=label, type_name=of_type)
    repeated, of_message = FieldDescriptorProto.LABEL_REPEATED, FieldDescriptorProto.TYPE_MESSAGE
    match.field.add(name="cookies", number=17, type=of_message, label=repeated, type_name=f".{file.package}.{_COOKIE}")


@cache
def _pool() -> Any:
    return descriptor_pool.DescriptorPool(_WithAdded())


def newest(descriptor: Descriptor) -> Descriptor:
    """The message's descriptor with the fields that are added to it; itself where there are none."""
    if descriptor.full_name != ROUTE_MATCH:
        return descriptor
    return cast(Descriptor, _pool().FindMessageTypeByName(ROUTE_MATCH))


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
