"""Bulkheads: a fixed number of requests at a time, by a key, and a bounded queue of those that wait their turn."""

from __future__ import annotations

import threading
from collections.abc import Callable

from meshlib.policy.codel import CoDel


class Compartments:
    """Requests in flight by key, at most `limit` of each. Thread-safe: a lock is held for a few steps, never over a
    call. Keys are kept as long as something of theirs is in flight.
    """

    __slots__ = ("_counts", "_lock", "_portions", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._counts: dict[str, int] = {}
        self._portions = {1.0: limit}  # by share: there are few
        self._lock = threading.Lock()

    def enter(self, key: str, share: float = 1.0) -> bool:
        """Take a place, if one is free in the `share` of the limit that this request may fill: one place at least."""
        limit = self._portions.get(share) or self._portions.setdefault(share, portion(self.limit, share))
        with self._lock:
            count = self._counts.get(key, 0)
            if count >= limit:
                return False
            self._counts[key] = count + 1
        return True

    def leave(self, key: str) -> None:
        """Give the place back."""
        with self._lock:
            count = self._counts[key]
            if count > 1:
                self._counts[key] = count - 1
            else:
                del self._counts[key]

    def in_flight(self, key: str = "") -> int:
        """How many of a key are inside."""
        return self._counts.get(key, 0)

    def __len__(self) -> int:
        return len(self._counts)


class Place:
    """A place in a queue. `admitted` is None as long as it waits; `wake` is called when that is no longer so, if it is
    there: whoever sets it looks at `admitted` afterwards.
    """

    __slots__ = ("admitted", "limit", "since", "wake")

    def __init__(self, since: float, limit: int) -> None:
        self.since = since
        self.limit = limit
        self.admitted: bool | None = None
        self.wake: Callable[[], object] | None = None

    def settle(self, admitted: bool) -> None:
        """The wait is over."""
        self.admitted = admitted
        wake = self.wake
        if wake is not None:
            wake()


class Queue:
    """At most `limit` requests inside and `max_waiting` that wait, first come first served; of both a request may fill
    a share. CoDel says who waited too long when its turn comes. Thread-safe as `Compartments`.
    """

    __slots__ = ("_codel", "_latest", "_lock", "_max_waiting", "_waiting", "in_flight", "limit")

    def __init__(self, limit: int, max_waiting: int, codel: CoDel) -> None:
        self.limit = limit
        self.in_flight = 0
        self._max_waiting = max_waiting
        self._waiting: dict[Place, None] = {}
        self._codel = codel
        self._latest = 0.0
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self, now: float, share: float = 1.0) -> Place | bool:
        """True: inside. A place: wait there, and `leave` it when it is woken or the wait is given up. False: full."""
        limit, room = portion(self.limit, share), portion(self._max_waiting, share)
        with self._lock:
            if now > self._latest:  # noqa: PLR1730  max() costs four times as much
                self._latest = now
            if self.in_flight < limit:
                self.in_flight += 1
            elif len(self._waiting) < room:
                place = Place(now, limit)
                self._waiting[place] = None
                return place
            else:
                return False
        codel = self._codel
        if now >= codel.over or codel.shortest > 0.0:
            codel.drops(0.0, now)  # nobody had to wait
        return True

    def leave(self, place: Place) -> bool:
        """The wait is over; whether there is a place inside."""
        with self._lock:
            if place in self._waiting:
                del self._waiting[place]
                return False
        return bool(place.admitted)

    def exit(self, now: float = 0.0) -> None:
        """Somebody who was inside has ended: the next one's turn. `now` may be left out by whoever has no clock."""
        with self._lock:
            now = self._latest = max(self._latest, now)
            self.in_flight -= 1
            place = self._next()
        while place is not None:
            if not self._codel.drops(now - place.since, now):
                place.settle(True)
                return
            place.settle(False)
            with self._lock:
                self.in_flight -= 1
                place = self._next()

    def _next(self) -> Place | None:
        """The first of the queue that may go in, already counted as inside."""
        for place in self._waiting:
            if self.in_flight < place.limit:
                del self._waiting[place]
                self.in_flight += 1
                return place
        return None


def portion(limit: int, share: float) -> int:
    """The part of a limit that a request may fill: at least one, where there is any."""
    return limit if share >= 1.0 else min(limit, max(1, int(limit * share)))
