"""Every mesh of the process, for whoever instruments them all, also those that are made later."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol


class Instrumentable(Protocol):
    """A mesh."""

    @property
    def instrument(self) -> Callable[..., None]:
        """Make spans and metrics."""

    def uninstrument(self) -> None:
        """Make none."""


_known: weakref.WeakSet[Instrumentable] = weakref.WeakSet()
_for_new: list[Callable[[Instrumentable], None]] = []


def made(mesh: Instrumentable) -> None:
    """A mesh has been made (called by it)."""
    _known.add(mesh)
    for instrument in _for_new:
        instrument(mesh)


def instrument_all(options: dict[str, Any]) -> None:
    """Instrument every mesh there is and every one that will be made."""

    def instrument(mesh: Instrumentable) -> None:
        mesh.instrument(**options)

    _for_new[:] = [instrument]
    for mesh in list(_known):
        instrument(mesh)


def uninstrument_all() -> None:
    """None of them, and no longer."""
    _for_new.clear()
    for mesh in list(_known):
        mesh.uninstrument()
