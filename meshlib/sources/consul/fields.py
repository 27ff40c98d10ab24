"""Reading Consul's JSON without trusting it: a wrong type is a `ResourceError` with its path, an unknown field told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from meshlib.model.report import Report, ResourceError

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Fields:
    """A JSON object at `path` of `resource`. Missing and null are the same: Consul leaves out what is empty."""

    __slots__ = ("path", "report", "resource", "value")

    def __init__(self, value: Any, path: str, resource: str, report: Report) -> None:
        if not isinstance(value, dict):
            raise ResourceError(path, f"{type(value).__name__} where an object is expected", resource)
        self.value = value
        self.path = path
        self.resource = resource
        self.report = report

    def at(self, key: str) -> str:
        """The path of a field."""
        return f"{self.path}.{key}" if self.path else key

    def text(self, key: str) -> str:
        """A string, empty when missing."""
        found = self.value.get(key)
        return "" if found is None else self._typed(key, found, str)

    def flag(self, key: str) -> bool:
        """A boolean, False when missing."""
        found = self.value.get(key)
        return False if found is None else self._typed(key, found, bool)

    def number(self, key: str, default: float = 0) -> float:
        """A number."""
        found = self.value.get(key)
        if found is None:
            return default
        if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < 1e18:
            raise ResourceError(self.at(key), f"{found!r} is not a number", self.resource)
        return found

    def integer(self, key: str, default: int = 0) -> int:
        """A whole number."""
        return int(self.number(key, default))

    def duration(self, key: str) -> float | None:
        """Seconds, None when missing: Go's notation ("1m30s"), or a number of nanoseconds (Consul writes both)."""
        found = self.value.get(key)
        if found is None or found == "":
            return None
        if not isinstance(found, str):
            return self.number(key) / 1e9
        sign, digits = (-1.0, found[1:]) if found.startswith("-") else (1.0, found)
        parts = _DURATION.findall(digits)
        if "".join(number + unit for number, unit in parts) != digits and digits != "0":
            raise ResourceError(self.at(key), f"{found!r} is not a duration", self.resource)
        return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)

    def object(self, key: str) -> Fields | None:
        """An object, None when missing or empty."""
        found = self.value.get(key)
        return Fields(found, self.at(key), self.resource, self.report) if found else None

    def objects(self, key: str) -> Iterator[Fields]:
        """A list of objects."""
        for index, item in enumerate(self._list(key)):
            yield Fields(item, f"{self.at(key)}[{index}]", self.resource, self.report)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        found = self._list(key)
        if not all(isinstance(item, str) for item in found):
            raise ResourceError(self.at(key), "not every item is a string", self.resource)
        return tuple(found)

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        found = self._list(key)
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in found):
            raise ResourceError(self.at(key), "not every item is a whole number", self.resource)
        return tuple(found)

    def mapping(self, key: str) -> dict[str, str]:
        """An object of strings."""
        found = self.value.get(key) or {}
        if not isinstance(found, dict) or not all(isinstance(item, str) for item in found.values()):
            raise ResourceError(self.at(key), "not an object of strings", self.resource)
        return found

    def entries(self, key: str) -> Iterator[tuple[str, Fields]]:
        """An object of objects."""
        found = self.object(key)
        if found is None:
            return
        for name in found.value:
            yield name, Fields(found.value[name], found.at(name), self.resource, self.report)

    def only(self, *known: str) -> None:
        """Tell of every other field that says something."""
        for key, value in self.value.items():
            if key not in known and value not in (None, "", 0, False, [], {}):
                self.degraded(key, "is not supported and has no effect")

    def degraded(self, key: str, reason: str) -> None:
        """Tell of a field that is not honoured."""
        self.report.degraded(self.resource, self.at(key), reason)

    def _list(self, key: str) -> list[Any]:
        found = self.value.get(key)
        return [] if found is None else self._typed(key, found, list)

    def _typed(self, key: str, found: Any, kind: type[Any]) -> Any:
        if not isinstance(found, kind):
            raise ResourceError(
                self.at(key), f"{type(found).__name__} where {kind.__name__} is expected", self.resource
            )
        return found
