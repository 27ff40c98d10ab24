"""Frozen metadata: `envoy.config.core.v3.Metadata` as hashable nested tuples.

Endpoint subsets read the namespace `envoy.lb`; everything else is carried for filters and telemetry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["EMPTY_METADATA", "EMPTY_STRUCT", "Metadata", "Struct", "Value", "freeze"]

Value: TypeAlias = "bool | float | str | tuple[Any, ...] | Struct | None"


@dataclass(frozen=True, slots=True)
class Struct:
    """A frozen JSON object: `items` is sorted by key, values are JSON scalars, tuples (lists) or `Struct`s."""

    items: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def of(cls, mapping: Mapping[str, object]) -> Struct:
        """Freeze a JSON-like mapping, recursively. Integers become floats, as in protobuf's `Struct`."""
        return cls(tuple(sorted((key, freeze(value)) for key, value in mapping.items())))

    def get(self, key: str, default: Value = None) -> Value:
        """The value under `key`, or `default`."""
        for name, value in self.items:
            if name == key:
                return value
        return default


def freeze(value: object) -> Value:
    """A hashable copy of a JSON-like value; raises `TypeError` for anything JSON cannot say."""
    match value:
        case None | bool() | str() | float() | Struct():
            return value
        case int():
            return float(value)
        case Mapping():
            return Struct.of(value)
        case list() | tuple():
            return tuple(freeze(item) for item in value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


EMPTY_STRUCT = Struct()


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata by namespace, for example `envoy.lb`."""

    namespaces: tuple[tuple[str, Struct], ...] = ()

    @classmethod
    def of(cls, mapping: Mapping[str, Mapping[str, object]]) -> Metadata:
        """Freeze `{namespace: {key: value}}`."""
        return cls(tuple(sorted((name, Struct.of(struct)) for name, struct in mapping.items())))

    def namespace(self, name: str) -> Struct:
        """The namespace's struct, empty when it is not there."""
        for key, struct in self.namespaces:
            if key == name:
                return struct
        return EMPTY_STRUCT


EMPTY_METADATA = Metadata()
