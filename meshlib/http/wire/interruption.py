"""Giving up a blocking exchange from another thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from meshlib.http.wire.types import FailureKind, WireError

if TYPE_CHECKING:
    from meshlib.http.wire.sync_connection import SyncConnection


class Interruption:
    """Knows the connection of one exchange while it waits for the response, and no longer: after that the connection
    may be another exchange's.
    """

    __slots__ = ("_conn", "_happened", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._conn: SyncConnection | None = None
        self._happened = False

    def watch(self, conn: SyncConnection) -> None:
        """The exchange is on this connection from now on. Raises WireError when it has been given up already."""
        with self._lock:
            if self._happened:
                raise WireError(FailureKind.RESET, f"{conn.peer}: the request was given up")
            self._conn = conn

    def over(self) -> None:
        """The exchange lets go of its connection."""
        with self._lock:
            self._conn = None

    def happen(self) -> None:
        """Give the exchange up: whoever is blocked on its connection wakes."""
        with self._lock:
            self._happened = True
            if self._conn is not None:
                self._conn.interrupt()
