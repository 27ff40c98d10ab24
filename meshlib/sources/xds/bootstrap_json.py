"""Reads JSON objects while remembering the path, so that an error names the place and what belongs there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class JsonPathError(ValueError):
    """A value is not what belongs at ``path``."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class JsonObject:
    """A JSON object at a path. Absent and null members read as empty; wrong types raise JsonPathError."""

    def __init__(self, raw: Mapping[str, Any], path: str) -> None:
        self.raw = raw
        self._path = path

    @classmethod
    def of(cls, value: object, path: str = "") -> JsonObject:
        """Take a value for an object, or refuse it."""
        if not isinstance(value, dict):
            raise JsonPathError(path, f"must be an object, not {_kind(value)}")
        return cls(value, path)

    def at(self, key: str) -> str:
        """The path of a member."""
        return f"{self._path}.{key}" if self._path else key

    def text(self, key: str, *, required: bool = False) -> str:
        """A string member; empty when absent, unless it is required."""
        value = self.raw.get(key)
        if value is None or value == "":
            if required:
                raise JsonPathError(self.at(key), "is required and must be a string that is not empty")
            return ""
        if not isinstance(value, str):
            raise JsonPathError(self.at(key), f"must be a string, not {_kind(value)}")
        return value

    def object(self, key: str) -> JsonObject:
        """An object member; empty when absent."""
        value = self.raw.get(key)
        return JsonObject.of({} if value is None else value, self.at(key))

    def objects(self, key: str) -> list[JsonObject]:
        """A list of objects; empty when absent."""
        return [JsonObject.of(item, path) for path, item in self._items(key)]

    def texts(self, key: str) -> list[str]:
        """The strings of a list; others are left out, because server_features may hold what later versions define."""
        return [item for _, item in self._items(key) if isinstance(item, str)]

    def objects_by_key(self) -> Iterator[tuple[str, JsonObject]]:
        """All members, each an object."""
        for key, value in self.raw.items():
            yield key, JsonObject.of({} if value is None else value, self.at(key))

    def _items(self, key: str) -> list[tuple[str, Any]]:
        value = self.raw.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise JsonPathError(self.at(key), f"must be a list, not {_kind(value)}")
        return [(f"{self.at(key)}[{index}]", item) for index, item in enumerate(value)]


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")
