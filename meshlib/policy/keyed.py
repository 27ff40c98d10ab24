"""Something for each key, of which the last used are kept: keys that callers choose must not fill the memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Keyed(Generic[K, V]):
    """At most `most` values, each made when its key is first asked for; the one not asked for the longest is forgotten.

    Thread-safe: a lock is held for a few steps of a dict, and while a value is made, which must be quick.
    """

    __slots__ = ("_lock", "_make", "_most", "_values")

    def __init__(self, make: Callable[[K, float], V], most: int) -> None:
        self._make = make
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K, now: float) -> V:
        """The key's value, made with the key and `now` if there is none."""
        values = self._values
        with self._lock:
            value = values.get(key)
            if value is not None:
                values.move_to_end(key)
                return value
            value = values[key] = self._make(key, now)
            if len(values) > self._most:
                values.popitem(last=False)
            return value

    def __len__(self) -> int:
        return len(self._values)
