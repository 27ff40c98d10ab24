"""The admin socket: HTTP over a Unix socket that only the process's own user may open.

`Mesh(admin="/run/checkout/{pid}.sock")` opens it when the mesh starts. Anything that speaks HTTP can ask:

    curl --unix-socket /run/checkout/7.sock http://admin/explain?url=http://payments/

It answers on threads of its own and takes no lock a call could wait for.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from urllib.parse import parse_qsl

from meshlib.admin.pages import Page, PageError

__all__ = ["AdminSocket"]

log = logging.getLogger("meshlib.admin")
_LONGEST_PATH = 107  # bytes; what `sun_path` holds besides its closing zero
_LARGEST_BODY = 1 << 20
_LENGTH = re.compile("[0-9]{1,10}")
_TIMEOUT = 10.0  # seconds a client may take to ask
_LAST_WAIT = 1.0  # seconds for the thread to end; it does not where somebody has removed the socket's file


class AdminSocket:
    """Serves `pages` at `path`, in which `{pid}` is the process's number; see `open`."""

    def __init__(self, path: str | os.PathLike[str], pages: dict[str, Page]) -> None:
        self.path = Path(os.fspath(path).replace("{pid}", str(os.getpid())))
        self._pages = pages
        self._server: _Server | None = None
        self._owner = 0

    def open(self) -> None:
        """Begin to serve. Raises OSError with what to do about it; a socket left by a process that died is replaced."""
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            raise OSError(f"{self.path} is too long for a Unix socket: at most {_LONGEST_PATH} bytes")
        if self.path.is_socket():
            if _answers(self.path):
                raise OSError(f"{self.path} belongs to a running process: put {{pid}} into the name")
            self.path.unlink()
        self._server = _Server(str(self.path), self._pages)
        self._owner = os.getpid()
        self._server.serving.start()

    def close(self) -> None:
        """Stop serving and remove the socket. In a forked child it is the parent's: the child only lets go of it, or it
        would look alive when the parent is not.
        """
        server, self._server = self._server, None
        if server is None:
            return
        if os.getpid() != self._owner:
            server.socket.close()
            return
        server.closing = True
        _answers(self.path)  # it waits for somebody to ask
        server.serving.join(_LAST_WAIT)
        server.server_close()
        with suppress(FileNotFoundError):
            self.path.unlink()


def opened(path: str | os.PathLike[str], pages: dict[str, Page]) -> AdminSocket | None:
    """An open socket, or None where it cannot be: a process must not fail for want of its admin socket."""
    admin = AdminSocket(path, pages)
    try:
        admin.open()
    except OSError as error:
        log.error("no admin socket: %s", error)
        return None
    return admin


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, pages: dict[str, Page]) -> None:
        self.pages = pages
        self.closing = False
        self.serving = threading.Thread(target=self._serve, name="meshlib-admin", daemon=True)
        super().__init__(path, _Handler)

    def server_activate(self) -> None:
        """Listen, which nobody can connect before: so from the first moment on it is for its own user alone. The umask
        would do it too, but it is the whole process's, whose other threads make files meanwhile.
        """
        Path(str(self.server_address)).chmod(0o600)
        super().server_activate()

    def _serve(self) -> None:
        """Unlike `serve_forever` this does not wake up twice a second, nor waits as long to end."""
        while not self.closing:
            self.handle_request()

    def handle_error(self, request: object, client_address: object) -> None:
        """Somebody who asked and did not wait for the answer is no error of the process's."""
        log.debug("an admin connection broke off: %r", sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    """One connection, one request."""

    server: _Server
    timeout = _TIMEOUT
    server_version, sys_version = "meshlib", ""

    def do_GET(self) -> None:
        """A page, its parameters in the query."""
        self._answer(lambda: "")

    def do_POST(self) -> None:
        """A page, with a body of lines."""
        self._answer(self._body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name of the base class
        """Quietly: an access log of one's own questions helps nobody."""

    def _body(self) -> str:
        length = self.headers.get("content-length", "")
        if not _LENGTH.fullmatch(length) or int(length) > _LARGEST_BODY:
            raise PageError(413, f"a body of at most {_LARGEST_BODY} bytes with its Content-Length is wanted")
        return self.rfile.read(int(length)).decode("utf-8", "replace")

    def _answer(self, body: Callable[[], str]) -> None:
        try:
            text = body()
        except PageError as error:
            self._send(error.status, f"{error}\n")
        else:
            self._send(*self._page(text))

    def _page(self, body: str) -> tuple[int, str]:
        """Status and text of what is asked for."""
        name, _, query = self.path.partition("?")
        page = self.server.pages.get(name)
        if page is None:
            return 404, f"no page {name}; there are {', '.join(sorted(self.server.pages))}\n"
        try:
            return 200, page(parse_qsl(query, keep_blank_values=True), body)
        except PageError as error:
            return error.status, f"{error}\n"
        except Exception:  # a page that fails must not silence the ones after it
            log.exception("admin page %s failed", name)
            return 500, "the page failed: the process's log says how\n"

    def _send(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        kind = "application/json" if text.startswith(("{", "[")) else "text/plain; charset=utf-8"
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _answers(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
