"""Unix sockets that only this process reaches: names in a private folder, and a look at who connects."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import socket
import struct
import tempfile
import threading
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")  # Linux's struct ucred: pid, uid, gid
_LONGEST = 100  # of a Unix socket's name: 108 bytes on Linux, 104 elsewhere


class Places:
    """Names for Unix sockets in a folder of this process (mode 0700), which goes when the process ends."""

    _lock: threading.Lock
    _folder: str | None
    _numbers: itertools.count[int]

    def __init__(self) -> None:
        self.forget()

    def new(self) -> str:
        """A name that was never used."""
        with self._lock:
            if self._folder is None:
                self._folder = _private_folder()
                atexit.register(_remove, self._folder, os.getpid())
            return f"{self._folder}/{next(self._numbers)}"

    def forget(self) -> None:
        """In a forked child: the folder is the parent's."""
        self._lock = threading.Lock()
        self._folder = None
        self._numbers = itertools.count()


def ours(sock: socket.socket) -> bool:
    """Whether this very process is at the other end of a Unix socket, where the system tells (Linux); elsewhere the
    folder's mode must do.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    pid, _, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return bool(pid == os.getpid())


def unlink(path: str) -> None:
    """Remove a socket's name; those who have it open keep it."""
    Path(path).unlink(missing_ok=True)


def _private_folder() -> str:
    folder = tempfile.mkdtemp(prefix="meshlib-")
    if len(folder) <= _LONGEST - 10:
        return folder
    Path(folder).rmdir()  # TMPDIR lies too deep for the name of a socket
    return tempfile.mkdtemp(prefix="meshlib-", dir="/tmp")


def _remove(folder: str, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


PLACES = Places()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PLACES.forget)
