"""FileSource: files and directories as a source, live on change, the last good version kept."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.model.report import Issue, ResourceError
from meshlib.model.snapshot import Snapshot
from meshlib.sources.base import Sink
from meshlib.sources.files.loader import Loader
from meshlib.sources.files.resources import Loaded
from meshlib.sources.files.snapshot import SnapshotBuilder, located
from meshlib.sources.files.watch import Watcher

if TYPE_CHECKING:
    from meshlib.sources.xds.node import Node

__all__ = ["FileSource"]

_log = logging.getLogger(__name__)

QUIET_SECONDS = 0.03
"""How long a file that looks half written is left alone before it is believed."""

_LONGEST_WORK = 5.0  # seconds a fork waits for files to be loaded and handed over; more is an owner that hangs
_watches: weakref.WeakSet[FileWatch] = weakref.WeakSet()

Deliver = Callable[[Loaded, Snapshot, tuple[Issue, ...]], None]
"""Called on the watching thread with every new state of the files, whether it has errors or not."""


class FileWatch:
    """Loads paths, and again on every change, in its own daemon thread. Shared by FileSource and the control plane."""

    def __init__(self, paths: Iterable[str | Path], deliver: Deliver, node: Node | None = None) -> None:
        self._paths = tuple(paths)
        self._node = node
        self._deliver = deliver
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._working = threading.RLock()
        self._holds_work = False
        _watches.add(self)

    def start(self) -> None:
        """Begin; the first delivery follows from the thread."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stop,), name="meshlib-files", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; idempotent, and callable from `deliver`."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=1.0)

    def before_fork(self) -> None:
        """Wait until the thread only watches: a child forked amid its imports could never import the same modules."""
        self._holds_work = self._working.acquire(timeout=_LONGEST_WORK)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._holds_work:
            self._working.release()

    def after_fork_in_child(self) -> None:
        """The thread is the parent's."""
        self._working = threading.RLock()
        self._thread = None

    def _run(self, stop: threading.Event) -> None:
        loader, builder, watcher = Loader(self._paths, self._node), SnapshotBuilder(), Watcher(self._paths, stop)
        seen, version = None, None
        while not stop.is_set():
            with self._working:
                watcher.arm()
                now = loader.signatures()
                if now != seen:
                    seen, version = now, self._load(loader, builder, version, stop)
                    continue
            watcher.wait()

    def _load(self, loader: Loader, builder: SnapshotBuilder, version: str | None, stop: threading.Event) -> str | None:
        """Load, deliver what is not `version`, and say which version that is."""
        loaded = loader.load()
        if loaded.transient and version is not None:
            stop.wait(QUIET_SECONDS)
            loaded = loader.load()
        if loaded.version != version and not stop.is_set():
            self._hand_over(builder, loaded)
        return loaded.version

    def _hand_over(self, builder: SnapshotBuilder, loaded: Loaded) -> None:
        try:
            self._deliver(loaded, *builder.build(loaded))
        except Exception:  # noqa: BLE001 - a bug must not end the watching: the next edit may get round it
            _log.exception("the configuration could not be handed over; the last good one stays in force")


class FileSource:
    """Envoy-format and Istio files as a source.

    `paths` are files and directories (recursive `*.yaml`, `*.yml`, `*.json`). A version with an error is reported with
    file and line and is not put into force: the one before it stays; at the start there is none, and the source waits
    for the files to be repaired. A change is in effect some 20 ms after it is written. `node`: the workload that
    Istio's objects are read for; without one a caller in the namespace `default`, without labels and locality.
    """

    def __init__(self, paths: str | Path | Iterable[str | Path], *, node: Node | None = None) -> None:
        self._paths = (paths,) if isinstance(paths, str | Path) else tuple(paths)
        self._node = node
        self._watch: FileWatch | None = None

    def start(self, sink: Sink) -> None:
        """Begin to load and to watch in a daemon thread; returns at once."""
        self._watch = FileWatch(self._paths, lambda *state: _publish(sink, *state), self._node)
        self._watch.start()

    def request(self, authority: str) -> None:
        """Nothing to ask: the files say everything."""

    def close(self) -> None:
        """Stop watching."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def forget(self) -> None:
        """In a forked child: the watching thread is the parent's."""
        self._watch = None


def _publish(sink: Sink, loaded: Loaded, snapshot: Snapshot, issues: tuple[Issue, ...]) -> None:
    if issues:
        sink.report(issues)
    if any(issue.severity == "error" for issue in issues):
        return
    try:
        sink.publish(snapshot)
    except ResourceError as error:
        sink.report((_locate(loaded, error),))


def _locate(loaded: Loaded, error: ResourceError) -> Issue:
    issue = Issue("error", error.resource, error.path, error.reason)
    for resource in loaded.resources:
        if resource.label == error.resource:
            return located(resource, issue)
    return issue


def _before_fork() -> None:
    for watch in list(_watches):
        watch.before_fork()


def _after_fork_in_parent() -> None:
    for watch in list(_watches):
        watch.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for watch in list(_watches):
        watch.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
