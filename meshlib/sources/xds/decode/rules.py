"""Turns the `validate.rules` options of the xDS protos into checks: what Envoy refuses, read from the same source.

Every rule of a field becomes a function `value -> reason or None`; the reason says what would be valid.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

Check = Callable[[Any], str | None]

_HEADER_NAME = re.compile(r":?[0-9a-zA-Z!#$%&'*+\-.^_|~\x60]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0A-\x1F\x7F]*")
_LOOSE_HEADER = re.compile(r"[^\x00\x0A\x0D]*")
_HOSTNAME = re.compile(r"(?=.{1,253}\.?$)([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9-]{1,63}\.?")
_WELL_KNOWN = {1: ("header name", _HEADER_NAME), 2: ("header value", _HEADER_VALUE)}


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def number_checks(rule: Any) -> Iterable[Check]:
    """Bounds and lists of a numeric rule. Written as `not (in range)`, so that NaN is never in range."""
    if rule.HasField("gt"):
        yield lambda v, b=rule.gt: None if v > b else f"must be greater than {b}, is {v}"  # type: ignore[misc]
    if rule.HasField("gte"):
        yield lambda v, b=rule.gte: None if v >= b else f"must be at least {b}, is {v}"  # type: ignore[misc]
    if rule.HasField("lt"):
        yield lambda v, b=rule.lt: None if v < b else f"must be less than {b}, is {v}"  # type: ignore[misc]
    if rule.HasField("lte"):
        yield lambda v, b=rule.lte: None if v <= b else f"must be at most {b}, is {v}"  # type: ignore[misc]
    yield from _list_checks(rule)


def _list_checks(rule: Any) -> Iterable[Check]:
    if rule.HasField("const"):
        yield lambda v, c=rule.const: None if v == c else f"must be {c!r}"  # type: ignore[misc]
    allowed, forbidden = frozenset(getattr(rule, "in")), frozenset(rule.not_in)
    if allowed:
        yield lambda v: None if v in allowed else f"must be one of {sorted(allowed)}, is {v!r}"
    if forbidden:
        yield lambda v: f"must not be {v!r}" if v in forbidden else None


def _length_checks(rule: Any, low: str, high: str, unit: str, size: Callable[[Any], int]) -> Iterable[Check]:
    if rule.HasField(low):
        least = getattr(rule, low)
        text = "must not be empty" if least == 1 else f"must have at least {least} {unit}"
        yield lambda v: None if size(v) >= least else text
    if rule.HasField(high):
        most = getattr(rule, high)
        yield lambda v: None if size(v) <= most else f"must have at most {most} {unit}, has {size(v)}"


def _pattern(name: str, pattern: re.Pattern[str]) -> Check:
    return lambda v: None if pattern.fullmatch(v) else f"is no valid {name}: {v[:80]!r}"


def string_checks(rule: Any) -> Iterable[Check]:
    """Rules of a string field."""
    yield from _length_checks(rule, "min_len", "max_len", "characters", len)
    yield from _length_checks(rule, "min_bytes", "max_bytes", "bytes", lambda v: len(v.encode()))
    if rule.HasField("prefix"):
        yield lambda v: None if v.startswith(rule.prefix) else f"must start with {rule.prefix!r}"
    if rule.HasField("suffix"):
        yield lambda v: None if v.endswith(rule.suffix) else f"must end with {rule.suffix!r}"
    if rule.HasField("pattern"):
        pattern = re.compile(rule.pattern)  # from the proto files, not from the wire
        yield lambda v: None if pattern.search(v) else f"must match {rule.pattern!r}"
    yield from _well_known(rule)
    yield from _list_checks(rule)


def _well_known(rule: Any) -> Iterable[Check]:
    kind = rule.WhichOneof("well_known")
    if kind == "well_known_regex" and rule.well_known_regex:
        name, strict = _WELL_KNOWN[rule.well_known_regex]
        yield _pattern(name, strict if not rule.HasField("strict") or rule.strict else _LOOSE_HEADER)
    elif kind == "hostname":
        yield _pattern("host name", _HOSTNAME)
    elif kind == "ip":
        yield lambda v: None if _is_ip(v) else f"is no IP address: {v[:80]!r}"
    elif kind == "address":
        yield lambda v: None if _is_ip(v) or _HOSTNAME.fullmatch(v) else f"is neither IP address nor host name: {v!r}"


def enum_checks(rule: Any, values: dict[int, Any]) -> Iterable[Check]:
    """Rules of an enum field."""
    if rule.defined_only:
        yield lambda v: None if v in values else f"is no known value: {v}"
    yield from _list_checks(rule)


def duration_checks(rule: Any) -> Iterable[Check]:
    """Bounds of a duration, compared in seconds."""
    for bound, holds, words in (
        ("gt", float.__gt__, "greater than"),
        ("gte", float.__ge__, "at least"),
        ("lt", float.__lt__, "less than"),
        ("lte", float.__le__, "at most"),
    ):
        if rule.HasField(bound):
            limit = getattr(rule, bound)
            seconds = limit.seconds + limit.nanos / 1e9
            yield lambda v, s=seconds, h=holds, w=words: (  # type: ignore[misc]
                None if h(v.seconds + v.nanos / 1e9, s) else f"must be {w} {s:g}s"
            )


def bytes_checks(rule: Any) -> Iterable[Check]:
    """Rules of a bytes field."""
    yield from _length_checks(rule, "min_len", "max_len", "bytes", len)


def any_checks(rule: Any) -> Iterable[Check]:
    """Rules of an `Any`."""
    allowed = frozenset(getattr(rule, "in"))
    if allowed:
        yield lambda v: None if v.type_url in allowed else f"must hold one of {sorted(allowed)}"


def repeated_checks(rule: Any) -> Iterable[Check]:
    """Size and uniqueness of a repeated field (its items have checks of their own)."""
    yield from _length_checks(rule, "min_items", "max_items", "items", len)
    if rule.unique:
        yield lambda v: None if len(set(v)) == len(v) else "must not hold an item twice"


def map_checks(rule: Any) -> Iterable[Check]:
    """Size of a map."""
    yield from _length_checks(rule, "min_pairs", "max_pairs", "entries", len)


def field_checks(rules: Any, enum_values: dict[int, Any] | None) -> list[Check]:
    """The checks of one value under `FieldRules`; `enum_values` are the known numbers of an enum field."""
    kind = rules.WhichOneof("type")
    if kind is None:
        return []
    rule = getattr(rules, kind)
    if kind == "enum":
        return list(enum_checks(rule, enum_values or {}))
    special: dict[str, Callable[[Any], Iterable[Check]]] = {
        "string": string_checks,
        "bytes": bytes_checks,
        "repeated": repeated_checks,
        "map": map_checks,
        "duration": duration_checks,
        "any": any_checks,
        "bool": lambda r: [lambda v: None if v == r.const else f"must be {r.const}"] if r.HasField("const") else [],
        "timestamp": lambda r: [],
    }
    checks = list(special.get(kind, number_checks)(rule))
    if "ignore_empty" in rule.DESCRIPTOR.fields_by_name and rule.ignore_empty:
        return [lambda v, c=check: c(v) if v else None for check in checks]  # type: ignore[misc]
    return checks
