"""The layers of runtime values that an xDS source subscribes to (RTDS), as one."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.runtime import RuntimeLayer, layered


class RuntimeLayers:
    """Layers by name, in their order: a later one wins. `values` is what they come to."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.values: Struct = EMPTY_STRUCT
        self._awaited = set(self.names)
        self._known: dict[str, RuntimeLayer] = {}

    @property
    def awaited(self) -> bool:
        """Whether one of them has neither come nor is known not to exist: what they change is not to begin without."""
        return bool(self._awaited)

    def put(self, name: str, layer: RuntimeLayer | None) -> bool:
        """A layer has come, or (None) does not exist; whether that changes anything."""
        was_awaited, before = self.awaited, self.values
        self._awaited.discard(name)
        if layer is None:
            self._known.pop(name, None)
        else:
            self._known[name] = layer
        self.values = layered(self._known[known] for known in self.names if known in self._known)
        return self.values != before or self.awaited is not was_awaited
