"""The seam between a source of configuration and the mesh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from meshlib.model.report import Issue
from meshlib.model.snapshot import Snapshot

__all__ = ["Sink", "Source"]


class Sink(Protocol):
    """What a source delivers to. Both methods may be called from any thread and return quickly."""

    def publish(self, snapshot: Snapshot) -> None:
        """Put a complete, consistent snapshot into force. Raises `ResourceError` when it cannot be compiled: the last
        good one then stays in force and the source keeps its own last good state.
        """

    def report(self, issues: Sequence[Issue]) -> None:
        """Tell of rejected resources and degraded fields; each distinct one is logged once."""


class Source(Protocol):
    """Anything that can say what the mesh looks like.

    `start` returns at once (work goes on in the source's own daemon thread, if it needs one) and may be called again,
    after `close` and in a forked child after `forget`. `request` names an authority (`host` or `host:port`) a call
    wants and the snapshot does not have, or a virtual host that comes on demand (`<route configuration>/<authority>`);
    sources that know everything from the start ignore it. `close` stops threads
    within a second and is idempotent.
    """

    def start(self, sink: Sink) -> None:
        """Begin delivering snapshots to `sink`."""

    def request(self, authority: str) -> None:
        """Ask for an authority on demand."""

    def close(self) -> None:
        """Stop; nothing is delivered after it returns."""

    def forget(self) -> None:
        """In a forked child: drop the parent's threads and connections without touching them. `start` may follow."""
