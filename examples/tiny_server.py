"""A stand-in for a service, so that the other examples run by themselves: a thread that answers with its name."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a caller that closes its connections is no news."""


class TinyServer:
    """Answers every GET with its `name` and present `status`, after `delay` seconds; `address` is `127.0.0.1:port`."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.status = 200
        self.delay = 0.0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two writes; the second must not wait for an answer

            def do_GET(self) -> None:
                time.sleep(owner.delay)
                body = name.encode()
                self.send_response(owner.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet: the caller's side is the example."""

        self._server = _Quiet(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True, name=name).start()
