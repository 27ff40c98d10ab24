"""A counter that loses no update under threads and takes no lock."""

from __future__ import annotations

from threading import get_ident


class Counter:
    """A monotonic count. Each thread writes only its own slot, so `add` needs no lock; `value` sums the slots."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}

    def add(self, amount: int = 1) -> None:
        """Count `amount` more."""
        slots = self._slots
        me = get_ident()
        try:
            slots[me] += amount
        except KeyError:
            slots[me] = amount

    @property
    def value(self) -> int:
        """The total so far."""
        return sum(list(self._slots.values()))
