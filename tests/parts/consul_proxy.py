"""A proxy before a Consul agent that can go wrong in many ways, and counts what it is asked."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Mode = Literal["pass", "500", "hang", "trickle", "garbage", "reset", "empty", "429"]


class ConsulProxy:
    """`.behave("500")` from the next request on, and for those that wait inside, which are cut off. `.asked` holds the
    time and the target of every request. With `strip_index` Consul's headers are lost.
    """

    host = "127.0.0.1"

    def __init__(self, upstream: int) -> None:
        self.mode: Mode = "pass"
        self.strip_index = False
        self.asked: list[tuple[float, str]] = []
        self._upstream = upstream
        self._changed = threading.Event()
        self._open: set[Any] = set()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                proxy._open.add(self.connection)

            def finish(self) -> None:
                proxy._open.discard(self.connection)
                super().finish()

            def log_message(self, *args: Any) -> None:
                return

            def do_GET(self) -> None:
                proxy._serve(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                return  # a client that left, or one that was cut off

        self._server = Server((self.host, 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def behave(self, mode: Mode) -> None:
        self.mode = mode
        self._changed.set()
        self._changed = threading.Event()
        for connection in list(self._open):
            _end(connection)

    def asked_since(self, moment: float) -> list[str]:
        return [target for at, target in list(self.asked) if at >= moment]

    def stop(self) -> None:
        self.behave("reset")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append((time.monotonic(), handler.path))
        match self.mode:
            case "hang":
                self._changed.wait(60)
                handler.close_connection = True
            case "reset":
                _end(handler.connection)
                handler.close_connection = True
            case "garbage":
                handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
                handler.close_connection = True
            case "500" | "429" as status:
                self._answer(handler, int(status), {}, b"No cluster leader")
            case "empty":
                self._answer(handler, 200, {"X-Consul-Index": "0"}, b"not json")
            case _:
                self._forward(handler)

    def _forward(self, handler: BaseHTTPRequestHandler) -> None:
        upstream = http.client.HTTPConnection(self.host, self._upstream, timeout=90)
        try:
            upstream.request("GET", handler.path, headers={"Host": "localhost"})
            response = upstream.getresponse()
            headers = {name: value for name, value in response.getheaders() if name.startswith("X-Consul")}
            self._answer(handler, response.status, {} if self.strip_index else headers, response.read())
        except OSError:
            self._answer(handler, 502, {}, b"the agent is gone")
        finally:
            upstream.close()

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if self.mode != "trickle":
            handler.wfile.write(body)
            return
        for index in range(len(body)):
            if self.mode != "trickle":
                break
            handler.wfile.write(body[index : index + 1])
            handler.wfile.flush()
            self._changed.wait(0.2)
        handler.close_connection = True


def _end(connection: Any) -> None:
    try:
        connection.shutdown(2)
    except OSError:
        return  # it has ended already
