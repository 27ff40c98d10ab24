"""Questions to a running process, by its admin socket."""

from __future__ import annotations

import argparse
import http.client
import socket
import sys
from urllib.parse import urlencode

from meshlib.cli.output import note

_TIMEOUT = 10.0


class LiveError(Exception):
    """The process did not answer the question."""


def explain_live(options: argparse.Namespace) -> int:
    """Print the process's explanation: 0, or 1 where it has none, 2 where nobody answers."""
    form = "json" if options.json else "text"
    query = [("method", options.method), ("url", options.url), ("format", form)]
    query += [("header", header) for header in options.headers]
    try:
        sys.stdout.write(ask(options.live, f"/explain?{urlencode(query)}"))
    except LiveError as error:
        note(f"meshlib explain: {error}")
        return 1
    except OSError as error:
        note(f"meshlib explain: {options.live}: {error.strerror or error}: no process listens there (Mesh(admin=...))")
        return 2
    return 0


def ask(path: str, target: str) -> str:
    """The page at `target`. Raises LiveError with what the process said instead, OSError where nobody answers."""
    connection = _Connection(path)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise LiveError(f"{path} is no admin socket: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise LiveError(text.strip())
    return text


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("admin", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect(self._path)
