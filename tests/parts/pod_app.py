"""A service that is nothing but fast, in a process that can be killed: `python -m parts.pod_app PORT`.

Answers 200, or 503 after `/__fail`, until `/__heal`; `/__count` tells the requests it has had beside these.
"""

from __future__ import annotations

import asyncio
import sys

_ANSWER = "HTTP/1.1 {} -\r\ncontent-length: {}\r\n\r\n{}"


class Pod:
    """Its state."""

    def __init__(self) -> None:
        self.count = 0
        self.status = 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answer(head.split(b" ", 2)[1].decode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def answer(self, path: str) -> bytes:
        """The response to a request."""
        if path == "/__count":
            return _ANSWER.format(200, len(str(self.count)), self.count).encode()
        if path in ("/__fail", "/__heal"):
            self.status = 503 if path == "/__fail" else 200
            return _ANSWER.format(200, 0, "").encode()
        self.count += 1
        return _ANSWER.format(self.status, 0, "").encode()


async def main(port: int) -> None:
    server = await asyncio.start_server(Pod().serve, "127.0.0.1", port, backlog=1024)
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
