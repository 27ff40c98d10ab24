"""Load reports of endpoints: `xds.data.orca.v3.OrcaLoadReport` as a value, and as the headers that carry it.

Read and written by hand: the message is small, and a client needs no protobuf for it. The header forms are Envoy's and
gRPC's: `endpoint-load-metrics-bin` with base64 of the message (raw bytes in gRPC metadata), and `endpoint-load-metrics`
with `JSON {...}`, `TEXT name=value, ...` or `BIN <base64>`.
"""

from __future__ import annotations

import json
import math
import struct
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshlib.model.protobuf_wire import FIXED64, LENGTH, MalformedMessageError, fields, varint

__all__ = ["HEADER", "HEADER_BIN", "LoadReport"]

HEADER = "endpoint-load-metrics"
HEADER_BIN = "endpoint-load-metrics-bin"

_DOUBLES = {1: "cpu_utilization", 2: "mem_utilization", 6: "rps_fractional", 7: "eps", 9: "application_utilization"}
_MAPS = {4: "request_cost", 5: "utilization", 8: "named_metrics"}


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Utilizations are shares (1.0 is full, more is possible for cpu and application), the rates are per second."""

    cpu_utilization: float = 0.0
    mem_utilization: float = 0.0
    application_utilization: float = 0.0
    rps_fractional: float = 0.0
    eps: float = 0.0
    request_cost: Mapping[str, float] = field(default_factory=dict)
    utilization: Mapping[str, float] = field(default_factory=dict)
    named_metrics: Mapping[str, float] = field(default_factory=dict)

    def metric(self, name: str) -> float:
        """A metric by the name the field of the balancer's configuration has for it: `cpu_utilization`,
        `named_metrics.queue`, or the largest of `utilization.*`. 0.0 where it was not reported.
        """
        if name in _DOUBLES.values():
            return float(getattr(self, name))
        kind, _, key = name.partition(".")
        if kind not in _MAPS.values():
            return 0.0
        found: Mapping[str, float] = getattr(self, kind)
        return max(found.values(), default=0.0) if key == "*" else found.get(key, 0.0)

    def to_bytes(self) -> bytes:
        """The message in protobuf's encoding."""
        parts = [struct.pack("<Bd", number << 3 | 1, getattr(self, name)) for number, name in _DOUBLES.items()]
        for number, name in _MAPS.items():
            for key, value in getattr(self, name).items():
                raw = key.encode()
                entry = b"\x0a" + varint(len(raw)) + raw + struct.pack("<Bd", 0x11, value)
                parts.append(bytes((number << 3 | 2,)) + varint(len(entry)) + entry)
        return b"".join(parts)

    def to_header(self) -> str:
        """The value of `endpoint-load-metrics-bin` over HTTP."""
        return b64encode(self.to_bytes()).decode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> LoadReport:
        """Raises ValueError for what is not the message; unknown fields are passed over."""
        doubles, maps = _empty()
        for number, kind, value in fields(data):
            if isinstance(value, int):
                continue
            if kind == FIXED64 and number in _DOUBLES:
                doubles[_DOUBLES[number]] = _double(value)
            elif kind == LENGTH and number in _MAPS:
                key, metric = _entry(value)
                maps[_MAPS[number]][key] = metric
        return cls(**doubles, **maps)

    @classmethod
    def from_headers(cls, binary: str | bytes | None, other: str | None) -> LoadReport | None:
        """The report in the values of the headers `endpoint-load-metrics-bin` and `endpoint-load-metrics`; None when
        there is none. Bytes are the message itself. Raises ValueError for a value that is none.
        """
        if isinstance(binary, bytes):
            return cls.from_bytes(binary)
        if binary is not None:
            return cls.from_bytes(_base64(binary))
        if other is None:
            return None
        form, _, value = other.strip().partition(" ")
        match form:
            case "BIN":
                return cls.from_bytes(_base64(value))
            case "JSON":
                return cls._from_json(value)
            case "TEXT":
                return cls._of(_text(value))
        raise ValueError(f"{HEADER} begins with JSON, TEXT or BIN, not {form[:20]!r}")

    @classmethod
    def _from_json(cls, text: str) -> LoadReport:
        try:
            found = json.loads(text)
        except RecursionError:
            raise ValueError("nested too deeply for a load report") from None
        if not isinstance(found, dict):
            raise ValueError("a load report in JSON is an object")  # noqa: TRY004  the text is wrong, not its type
        pairs: dict[str, float] = {}
        for raw_name, value in found.items():
            name = _snake(raw_name)
            if isinstance(value, dict):
                pairs.update({f"{name}.{key}": _number(metric) for key, metric in value.items()})
            else:
                pairs[name] = _number(value)
        return cls._of(pairs)

    @classmethod
    def _of(cls, pairs: Mapping[str, float]) -> LoadReport:
        doubles, maps = _empty()
        for name, value in pairs.items():
            kind, dot, key = name.partition(".")
            if dot and kind in maps and key:
                maps[kind][key] = value
            elif name in _DOUBLES.values():
                doubles[name] = value
            elif name != "rps":  # whole requests a second, of old reports: nothing here reads them
                raise ValueError(f"{name[:60]!r} is not a metric of a load report")
        return cls(**doubles, **maps)


def _empty() -> tuple[dict[str, Any], dict[str, Any]]:
    """The report's numbers, and its maps, by name."""
    return {}, {name: {} for name in _MAPS.values()}


def _entry(data: bytes) -> tuple[str, float]:
    key, value = "", 0.0
    for number, kind, part in fields(data):
        if isinstance(part, int):
            continue
        if number == 1 and kind == LENGTH:
            key = part.decode()  # UnicodeDecodeError is a ValueError
        elif number == 2 and kind == FIXED64:
            value = _double(part)
    return key, value


def _double(raw: bytes) -> float:
    return _finite(struct.unpack("<d", raw)[0])


def _text(value: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in value.split(","):
        if not item.strip():
            continue
        name, _, number = item.replace(":", "=", 1).partition("=") if "=" not in item else item.partition("=")
        name = name.strip()
        if name in found:
            raise ValueError(f"{name[:60]!r} is there twice")
        found[name] = _finite(float(number))
    return found


def _base64(value: str) -> bytes:
    try:
        return b64decode(value + "=" * (-len(value) % 4), validate=True)  # gRPC leaves the padding out
    except Base64Error as error:
        raise ValueError(f"not base64: {error}") from None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("a metric is a number")  # noqa: TRY004  the text is wrong, not its type
    try:
        return _finite(float(value))
    except OverflowError:  # a whole number of hundreds of digits
        raise ValueError("a metric is a finite number") from None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a metric is a finite number")
    return value


def _snake(name: str) -> str:
    """Protobuf's JSON has lower camel case, and takes the field's own name as well."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def report_request(interval: float) -> bytes:
    """`OrcaLoadReportRequest` for a report every `interval` seconds, in protobuf's encoding."""
    seconds, nanos = divmod(round(interval * 1e9), 1_000_000_000)
    duration = b"".join(bytes((tag,)) + varint(value) for tag, value in ((8, seconds), (16, nanos)) if value)
    return b"\x0a" + varint(len(duration)) + duration


def requested_interval(request: bytes) -> float:
    """The seconds an `OrcaLoadReportRequest` asks for; 0.0 where it says none, or is not one."""
    try:
        duration = next((part for number, _, part in fields(request) if number == 1 and isinstance(part, bytes)), b"")
        parts = {number: part for number, _, part in fields(duration) if isinstance(part, int)}
    except MalformedMessageError:
        return 0.0
    return parts.get(1, 0) + parts.get(2, 0) / 1e9
