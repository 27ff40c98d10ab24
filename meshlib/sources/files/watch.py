"""Waits until files may have changed: by the operating system's notifications, or by looking every 50 ms.

Notifications only say *when* to look; *what* changed is decided by comparing signatures, so renames, swapped links,
editors' dances and lost notifications all come to the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

POLL_SECONDS = 0.05
_STEP_MS = 10  # a burst is over when nothing came for this long
_DEBOUNCE_MS = 30  # ... but it is not waited for longer than this
_LOOK_AGAIN_MS = 1000  # without any notification: folders may have been replaced under their names


_notified: set[int] = set()  # the processes, this one and those it was forked from, that have used notifications


class _Notify(Protocol):
    def watch(self, debounce_ms: int, step_ms: int, timeout_ms: int, stop_event: threading.Event) -> object: ...


class Watcher:
    """Watches files and directories (recursively). For one thread; `stop` may be set by another."""

    def __init__(self, paths: Iterable[str | Path], stop: threading.Event) -> None:
        self._paths = tuple(Path(path) for path in paths)
        self._stop = stop
        self._armed: Mapping[str, int] | None = None
        self._notify: _Notify | None = None

    def arm(self) -> None:
        """Begin to notice: a change after this call ends the next `wait`."""
        folders = self._folders()
        if folders != self._armed:
            self._armed = folders
            self._notify = _notifier(folders) if folders else None

    def wait(self) -> None:
        """Return when something may have changed, at the latest after a second, or when `stop` is set."""
        if self._notify is None:
            self._stop.wait(POLL_SECONDS)
        else:
            self._notify.watch(_DEBOUNCE_MS, _STEP_MS, _LOOK_AGAIN_MS, self._stop)

    def _folders(self) -> Mapping[str, int] | None:
        """Inode by folder of everything to watch; None when one of them is not there (then only looking helps)."""
        folders: set[str] = set()
        for path in self._paths:
            if path.is_dir():
                folders.update(root for root, _, _ in os.walk(path, followlinks=True))
            folders.add(str(path.parent))
            folders.add(os.path.dirname(os.path.realpath(path)))  # noqa: PTH120 - realpath never raises, resolve may
        try:
            return {folder: Path(folder).stat().st_ino for folder in folders}
        except OSError:
            return None


def _notifier(folders: Mapping[str, int]) -> _Notify | None:
    if _notified - {os.getpid()}:
        return None  # forked while its parent had a notifier: one made here now and then never returns from `watch`
    _notified.add(os.getpid())
    try:
        # The class under `watchfiles.watch`: that generator is armed only when first asked, and would miss what comes
        # between reading the files and asking.
        from watchfiles._rust_notify import RustNotify
    except ImportError:
        return None
    try:
        notify: _Notify = RustNotify(sorted(folders), False, False, 50, False, True)
    except (OSError, RuntimeError):  # no watches left, or a file system without notifications
        return None
    return notify
