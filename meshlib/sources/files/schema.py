"""A value against a protobuf message type: every problem at once, with its field path, a reason and a fix.

`google.protobuf.json_format` stops at the first mistake and speaks Python; what passes here it accepts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from meshlib.sources.files.located import FieldPath, json_name
from meshlib.sources.files.scalars import check_duration, check_scalar, check_text, check_timestamp
from meshlib.sources.files.type_registry import TYPE_URL_PREFIX, descriptor_of, message_class, suggest_type
from meshlib.sources.xds.decode.added_fields import newest

_WRAPPERS = frozenset(f"google.protobuf.{kind}Value" for kind in
                      ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64"))  # fmt: skip
_KINDS = {
    "google.protobuf.Struct": (dict, "a mapping", ""),
    "google.protobuf.ListValue": (list, "a list", ""),
    "google.protobuf.Value": (object, "", ""),
    "google.protobuf.FieldMask": (str, "a list of fields as text", 'write it as "a.b,c"'),
}
_UNDER_VALUE = {*_WRAPPERS, *_KINDS, *(f"google.protobuf.{kind}" for kind in ("Any", "Duration", "Timestamp"))}
"""Types whose JSON form is no object of their fields: in an Any it stands under "value"."""
_FOREIGN_TYPE = re.compile(r"[\w.]+/[\w.]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. Degraded are an Any of a type that is not in the protos, which is kept as a TypedStruct, and one
    without the value that belongs to it, which is the default.
    """

    path: FieldPath
    reason: str
    fix: str = ""
    severity: Literal["error", "degraded"] = "error"


def check_message(value: Any, descriptor: Descriptor, path: FieldPath = ()) -> Iterator[Problem]:
    """Every reason why `value` is not the JSON form of the message; nothing when it is."""
    name = descriptor.full_name
    if name in _WRAPPERS:
        yield from _check_field_value(value, descriptor.fields_by_name["value"], path)
    elif name == "google.protobuf.Duration":
        yield from _problems(path, check_duration(value))
    elif name == "google.protobuf.Timestamp":
        yield from _problems(path, check_timestamp(value))
    elif name == "google.protobuf.Any":
        yield from _check_any(value, path)
    elif name in _KINDS:
        kind, what, fix = _KINDS[name]
        if not isinstance(value, kind):
            yield Problem(path, f"{_kind(value)} where {what} belongs", fix)
        else:
            yield from _check_free(value, path)
    else:
        yield from _check_fields(value, descriptor, path)


def _check_free(value: Any, path: FieldPath) -> Iterator[Problem]:
    """Of a value of any shape only its texts can be wrong."""
    if isinstance(value, str):
        yield from _problems(path, check_text(value))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _problems(path, check_text(key))
            yield from _check_free(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _check_free(item, (*path, index))


def _check_fields(value: Any, descriptor: Descriptor, path: FieldPath) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem(path, f"{_kind(value)} where {descriptor.name} belongs", _fields_fix(descriptor))
        return
    chosen: dict[str, str] = {}
    for key, item in value.items():
        field = _field(descriptor, key) or _field(newest(descriptor), key)
        if field is None:
            yield Problem(
                (*path, key), f"{descriptor.name} has no field {key!r}", _unknown_fix(newest(descriptor), key)
            )
            continue
        if item is None:
            continue  # proto JSON: null is "not set"
        oneof = field.containing_oneof
        if oneof is not None:
            if oneof.name in chosen:
                reason = f"{chosen[oneof.name]} and {key} exclude each other (one of {oneof.name})"
                yield Problem((*path, key), reason, "keep one of the two")
            chosen[oneof.name] = key
        yield from _check_field(item, field, (*path, key))


def _check_field(value: Any, field: FieldDescriptor, path: FieldPath) -> Iterator[Problem]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        if not isinstance(value, dict):
            yield Problem(path, f"{_kind(value)} where a mapping belongs")
            return
        of_value = entry.fields_by_name["value"]
        for key, item in value.items():
            yield from _check_field_value(item, of_value, (*path, key))
    elif field.is_repeated:
        if not isinstance(value, list):
            yield Problem(path, f"{_kind(value)} where a list belongs", "begin each item with '- '")
            return
        for index, item in enumerate(value):
            yield from _check_field_value(item, field, (*path, index))
    else:
        yield from _check_field_value(value, field, path)


def _check_field_value(value: Any, field: FieldDescriptor, path: FieldPath) -> Iterator[Problem]:
    if field.message_type is not None:
        if value is None and field.message_type.full_name != "google.protobuf.Value":
            yield Problem(path, "empty where a value belongs")
        else:
            yield from check_message(value, field.message_type, path)
    else:
        yield from _problems(path, check_scalar(value, field))


def _check_any(value: Any, path: FieldPath) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem(path, f"{_kind(value)} where a typed config belongs", 'a mapping with "@type"')
        return
    url = value.get("@type")
    if not isinstance(url, str) or not _FOREIGN_TYPE.fullmatch(url):
        yield Problem(
            path, 'the typed config has no "@type"', f'begin it with "@type": {TYPE_URL_PREFIX}<message type>'
        )
        return
    cls = message_class(url.rpartition("/")[2])
    if cls is None:
        yield unknown_type(url, (*path, "@type"))
        return
    descriptor = descriptor_of(cls)
    rest = {key: item for key, item in value.items() if key != "@type"}
    if descriptor.full_name in _UNDER_VALUE:
        yield from _check_well_known(rest, descriptor, path)
    else:
        yield from check_message(rest, descriptor, path)


def _check_well_known(rest: dict[str, Any], descriptor: Descriptor, path: FieldPath) -> Iterator[Problem]:
    name = descriptor.name
    for key in rest:
        if key != "value":
            yield Problem((*path, key), f"{name} has no field {key!r} here", 'what it holds stands under "value"')
    if lacks_value(rest, descriptor):
        reason = f'the {name} has no "value": it is taken as empty, as Envoy does'
        yield Problem((*path, "@type"), reason, 'write what it holds under "value"', severity="degraded")
    else:
        yield from check_message(rest["value"], descriptor, (*path, "value"))


def lacks_value(value: Any, descriptor: Descriptor) -> bool:
    """Whether an Any is of a well-known type and has none. Null is a value for a `google.protobuf.Value` alone."""
    name = descriptor.full_name
    if name == "google.protobuf.Value":
        return "value" not in value
    return name in _UNDER_VALUE and value.get("value") is None


def unknown_type(url: str, path: FieldPath) -> Problem:
    """Of Envoy's own packages an unknown type is a mistake, as it is to Envoy; a foreign one (`io.istio...`) is kept
    as it is, so that the decoder can report the extension by name.
    """
    near = suggest_type(url.rpartition("/")[2])
    if url.startswith(TYPE_URL_PREFIX + "envoy."):
        return Problem(
            path, f"unknown type {url!r}", f"did you mean {near}?" if near else "look its name up in Envoy's API"
        )
    return Problem(path, f"unknown type {url!r}: the extension is not applied", severity="degraded")


def _field(descriptor: Descriptor, key: str) -> FieldDescriptor | None:
    if not key.isascii():
        return None
    return descriptor.fields_by_name.get(key) or descriptor.fields_by_camelcase_name.get(key)


def _unknown_fix(descriptor: Descriptor, key: str) -> str:
    names = {json_name(name): name for name in descriptor.fields_by_name}
    near = difflib.get_close_matches(json_name(key), names, 1, 0.6)
    return f"did you mean {names[near[0]]!r}?" if near else _fields_fix(descriptor)


def _fields_fix(descriptor: Descriptor) -> str:
    names = sorted(descriptor.fields_by_name)
    return (
        f"its fields are {', '.join(names[:12])}" + (", ..." if len(names) > 12 else "") if names else "it is empty: {}"
    )


def _problems(path: FieldPath, finding: tuple[str, str] | None) -> Iterator[Problem]:
    if finding is not None:
        yield Problem(path, *finding)


def _shown(value: Any) -> str:
    return f"{value!r:.60}"


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else "nothing" if value is None else _shown(value)
