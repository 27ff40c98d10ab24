"""The timers after which a resource that was asked for counts as not existing (gRFC A57: 15 s).

They run only while the request is known to be on the wire. In back-off or while connecting the control plane cannot
answer, and calling its silence "does not exist" would take working configuration down.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.sources.xds.cache import ResourceCache
from meshlib.sources.xds.events import Event, ResourceDoesNotExist
from meshlib.sources.xds.subscriptions import Subscriptions


class DoesNotExistTimers:
    """One deadline a resource still unanswered on the current stream. Seconds, on the clock of ``now``."""

    def __init__(self, subscriptions: Subscriptions, cache: ResourceCache, after: float) -> None:
        self._subscriptions = subscriptions
        self._cache = cache
        self._after = after
        self._deadlines: dict[tuple[str, str], float] = {}

    def start(self, type_url: str, names: Iterable[str], now: float) -> None:
        """The request for these names is on the wire; timers that already run keep running."""
        for name in names:
            if self._is_wanted(type_url, name):
                self._deadlines.setdefault((type_url, name), now + self._after)

    def stop_all(self) -> None:
        """The stream is gone: nothing can be answered until the next one."""
        self._deadlines.clear()

    def settle(self) -> None:
        """Drop the timers of what has been answered or is not subscribed to any more."""
        for key in [key for key in self._deadlines if not self._is_wanted(*key)]:
            del self._deadlines[key]

    def tick(self, now: float) -> list[Event]:
        """Declare missing what has not come in time."""
        self.settle()
        due = [key for key, deadline in self._deadlines.items() if deadline <= now]
        for key in due:
            del self._deadlines[key]
            self._cache.mark_missing(*key)
        return [ResourceDoesNotExist(*key) for key in due]

    def deadline(self) -> float | None:
        """When ``tick`` next has something to say."""
        return min(self._deadlines.values(), default=None)

    def _is_wanted(self, type_url: str, name: str) -> bool:
        return name in self._subscriptions.names(type_url) and not self._cache.is_known(type_url, name)
