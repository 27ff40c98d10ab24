"""Runtime: values by key, which replace the defaults that a configuration gives beside the key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshlib.model.metadata import EMPTY_STRUCT, Struct, Value

__all__ = ["RuntimeLayer", "flattened", "layered"]

_FRACTION = frozenset({"numerator", "denominator"})  # of a FractionalPercent, which is a value and no level


@dataclass(frozen=True, slots=True)
class RuntimeLayer:
    """`envoy.service.runtime.v3.Runtime`: one layer, its keys flattened (`{a: {b: 1}}` is the key `a.b`)."""

    name: str
    values: Struct = EMPTY_STRUCT


def flattened(values: Struct) -> Struct:
    """A struct of one level, as Envoy reads it: a text that is a number is that number."""
    return Struct(tuple(sorted(dict(_leaves("", values)).items())))


def _leaves(prefix: str, values: Struct) -> Iterable[tuple[str, Value]]:
    for name, value in values.items:
        key = prefix + name
        if isinstance(value, Struct) and not _FRACTION & {inner for inner, _ in value.items}:
            yield from _leaves(f"{key}.", value)
        else:
            yield key, float(value) if isinstance(value, str) and value.isdecimal() else value


def layered(layers: Iterable[RuntimeLayer]) -> Struct:
    """All layers as one; a later one wins."""
    merged: dict[str, Value] = {}
    for layer in layers:
        merged.update(layer.values.items)
    return Struct(tuple(sorted(merged.items()))) if merged else EMPTY_STRUCT
