"""Scalars of proto3 JSON: what a field of each kind takes, and what to write instead."""

from __future__ import annotations

import base64
import binascii
import difflib
import math
import re
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

Finding = tuple[str, str] | None
"""Reason and fix, or None when the value is fine."""

_MAX_SECONDS = 315_576_000_000  # google.protobuf.Duration: ten thousand years
_DURATION = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOAT_WORDS = frozenset(("NaN", "Infinity", "-Infinity"))


def check_duration(value: Any) -> Finding:
    """`"15s"`, `"0.25s"`: a string of seconds."""
    if isinstance(value, str) and _DURATION.fullmatch(value) and abs(float(value[:-1])) <= _MAX_SECONDS:
        return None
    return f"{value!r:.40} is not a duration", _duration_fix(value)


def check_timestamp(value: Any) -> Finding:
    """`"2026-01-31T12:00:00Z"`: RFC 3339."""
    try:
        Timestamp().FromJsonString(value)
    except (ValueError, TypeError, AttributeError):
        return f"{value!r:.40} is not a timestamp", 'write it as "2026-01-31T12:00:00Z"'
    return None


def _duration_fix(value: Any) -> str:
    text = str(value)
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) and not isinstance(value, bool):
        return f"durations are strings of seconds: {text}s"
    if match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|m|h)", text):
        seconds = float(match[1]) * {"ms": 0.001, "m": 60, "h": 3600}[match[2]]
        return f"durations are strings of seconds: {seconds:g}s"
    return "durations are strings of seconds like '15s' or '0.25s'"


def check_scalar(value: Any, field: FieldDescriptor) -> Finding:
    """Reason and fix when a field that is no message cannot take the value."""
    kind = field.cpp_type
    if kind in _RANGES:
        return _check_integer(value, *_RANGES[kind])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return None if isinstance(value, bool) else (f"{value!r:.40} is not a boolean", "write true or false")
    if field.enum_type is not None:
        return _check_enum(value, field.enum_type)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _check_bytes(value) if field.type == FieldDescriptor.TYPE_BYTES else check_text(value)
    return _check_float(value)


def _check_integer(value: Any, low: int, high: int) -> Finding:
    if isinstance(value, str) and _INTEGER.fullmatch(value) and len(value) < 30:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return f"{value!r:.40} is not a whole number", ""
    return None if low <= value <= high else (f"{value} is out of range", f"{low} to {high}")


def _check_float(value: Any) -> Finding:
    if isinstance(value, str) and value not in _FLOAT_WORDS:
        try:
            float(value)
        except ValueError:
            return f"{value!r:.40} is not a number", ""
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return f"{value!r:.40} is not a number", ""
    if isinstance(value, int) and not math.isfinite(_as_float(value)):
        return "the number is too large", ""
    return None


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_text(value: Any) -> Finding:
    """A string that UTF-8 can say."""
    if not isinstance(value, str):
        if isinstance(value, bool | int | float):
            return f"{value!r:.40} where text belongs", "put it in quotes"
        return f"{type(value).__name__} where text belongs", ""
    return ("the text holds a lone surrogate", "") if any("\ud800" <= c <= "\udfff" for c in value) else None


def _check_bytes(value: Any) -> Finding:
    try:
        if isinstance(value, str):
            base64.b64decode(value.translate({ord("-"): "+", ord("_"): "/"}) + "=" * (-len(value) % 4), validate=True)
            return None
    except (binascii.Error, ValueError):
        pass  # said below, in the words of the field
    return f"{value!r:.40} is not base64", "encode the bytes in base64"


def _check_enum(value: Any, enum: EnumDescriptor) -> Finding:
    if isinstance(value, int) and not isinstance(value, bool):
        known = value in enum.values_by_number
        return None if known else (f"{value} is no value of {enum.name}", _names(enum))
    names = set(enum.values_by_name)  # the descriptor's own mapping cannot be asked for text that is not UTF-8
    if isinstance(value, str) and value in names:
        return None
    near = difflib.get_close_matches(str(value).upper(), names, 1)
    fix = f"did you mean {near[0]}?" if near else _names(enum)
    return f"{value!r:.40} is no value of {enum.name}", fix


def _names(enum: EnumDescriptor) -> str:
    return "one of " + ", ".join(list(enum.values_by_name)[:12])
