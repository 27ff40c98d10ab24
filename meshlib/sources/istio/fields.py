"""A small language that says what fields an Istio object has: every spec is checked against it before it is used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshlib.sources.files.located import FieldPath
from meshlib.sources.files.scalars import check_duration
from meshlib.sources.files.schema import Problem


@dataclass(frozen=True, slots=True)
class Scalar:
    """`text`, `number`, `whole` (with bounds), `flag` or `duration`."""

    kind: str
    low: float = 0
    high: float = 2**32 - 1


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of the words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list."""

    item: Kind


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping from text."""

    item: Kind


@dataclass(frozen=True, slots=True)
class Fields:
    """A message. `not_applied` fields are known to Istio and reported with their reason; `ignored` ones change nothing
    here; `partly` says of known ones what of them is reported when the configuration is decoded. `exclusive` fields are
    alternatives, of which one has to say something if one is `demanded`.
    """

    name: str
    known: Mapping[str, Kind]
    required: tuple[str, ...] = ()
    exclusive: tuple[str, ...] = ()
    not_applied: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    partly: Mapping[str, str] = field(default_factory=dict)
    demanded: bool = False


Kind = Scalar | OneOf | ListOf | MapOf | Fields

TEXT = Scalar("text")
FLAG = Scalar("flag")
NUMBER = Scalar("number")
WHOLE = Scalar("whole")
DURATION = Scalar("duration")
PORT = Scalar("whole", 1, 65535)
PERCENT = Scalar("number", 0, 100)


def check(value: Any, kind: Kind, path: FieldPath = ()) -> Iterator[Problem]:
    """Every problem of `value`, as `schema.check_message` reports them."""
    if isinstance(kind, Scalar):
        yield from _check_scalar(value, kind, path)
    elif isinstance(kind, OneOf):
        if value not in kind.words:
            near = difflib.get_close_matches(str(value).upper(), kind.words, 1)
            fix = f"did you mean {near[0]}?" if near else "one of " + ", ".join(kind.words)
            yield Problem(path, f"{value!r:.40} is not known here", fix)
    elif isinstance(kind, ListOf):
        yield from _check_items(value, list, "a list", kind.item, path)
    elif isinstance(kind, MapOf):
        yield from _check_items(value, dict, "a mapping", kind.item, path)
    else:
        yield from _check_fields(value, kind, path)


def stated(value: Any, kind: Kind) -> Any:
    """The value without the fields that are null, which say nothing, as in Kubernetes. Of a wrong shape it stays as it
    is.
    """
    if isinstance(kind, Fields) and isinstance(value, dict):
        said = {key: inside for key, inside in value.items() if inside is not None}
        return {key: stated(inside, kind.known[key]) if key in kind.known else inside for key, inside in said.items()}
    if isinstance(kind, ListOf) and isinstance(value, list):
        return [stated(item, kind.item) for item in value]
    if isinstance(kind, MapOf) and isinstance(value, dict):
        return {key: stated(item, kind.item) for key, item in value.items()}
    return value


def _check_items(
    value: Any, cls: type[list[Any] | dict[str, Any]], words: str, item: Kind, path: FieldPath
) -> Iterator[Problem]:
    if not isinstance(value, cls):
        yield Problem(path, f"{value!r:.40} where {words} belongs")
        return
    pairs: Iterable[tuple[str | int, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inside in pairs:
        yield from check(inside, item, (*path, key))


def _check_fields(value: Any, kind: Fields, path: FieldPath) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem(path, f"{value!r:.40} where {kind.name} belongs")
        return
    for key, inside in value.items():
        here = (*path, key)
        if key in kind.known:
            yield from check(inside, kind.known[key], here) if inside is not None else ()
        elif key in kind.not_applied:
            yield Problem(here, kind.not_applied[key], severity="degraded")
        elif key not in kind.ignored:
            yield Problem(here, f"{kind.name} has no field {key!r}", _suggest(key, kind))
    for key in kind.required:
        if value.get(key) in (None, "", []):
            yield Problem(path, f"{kind.name} needs {key!r}")
    chosen = [key for key in kind.exclusive if value.get(key) is not None]
    if len(chosen) > 1:
        yield Problem((*path, chosen[1]), f"{' and '.join(chosen)} exclude each other", "keep one")
    if kind.demanded and not any(value.get(key) for key in kind.exclusive):
        yield Problem(path, f"{kind.name} needs one of {', '.join(kind.exclusive)}")


def _check_scalar(value: Any, kind: Scalar, path: FieldPath) -> Iterator[Problem]:
    reason, fix = "", ""
    if kind.kind == "duration":
        reason, fix = _istio_duration(value)
    elif kind.kind == "flag" and not isinstance(value, bool):
        reason, fix = f"{value!r:.40} is not a boolean", "write true or false"
    elif kind.kind == "text" and not isinstance(value, str):
        reason, fix = f"{value!r:.40} where text belongs", "put it in quotes"
    elif kind.kind in {"whole", "number"}:
        allowed = int if kind.kind == "whole" else int | float
        if isinstance(value, bool) or not isinstance(value, allowed):
            reason = f"{value!r:.40} is not a {'whole ' if kind.kind == 'whole' else ''}number"
        elif not kind.low <= value <= kind.high:
            reason, fix = f"{value} is out of range", f"{kind.low} to {kind.high}"
    if reason:
        yield Problem(path, reason, fix)


def _istio_duration(value: Any) -> tuple[str, str]:
    if isinstance(value, str) and seconds_of(value) is not None:
        return "", ""
    return check_duration(value) or ("", "")


def seconds_of(text: str) -> float | None:
    """The seconds of a Go duration (`1h30m`, `250ms`): Kubernetes objects may be written so. None if it is none."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
    total, number, rest = 0.0, "", text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        letters = len(rest) - len(rest.lstrip("hmsunµ"))
        unit, rest = rest[:letters], rest[letters:]
        if unit not in units or not number.replace(".", "", 1).isdigit() or len(number) > 12:
            return None
        total += float(number) * units[unit]
    return total if text else None


def envoy_duration(text: str) -> str:
    """A duration of an Istio object in protobuf's JSON form."""
    return f"{seconds_of(text) or 0.0:.9f}".rstrip("0").rstrip(".") + "s"


def _suggest(key: str, kind: Fields) -> str:
    names = [*kind.known, *kind.not_applied, *kind.ignored]
    lowered = {name.lower(): name for name in names}
    near = difflib.get_close_matches(key.lower().replace("_", ""), lowered, 1, 0.6)
    return f"did you mean {lowered[near[0]]!r}?" if near else f"its fields are {', '.join(sorted(names)[:12])}"
