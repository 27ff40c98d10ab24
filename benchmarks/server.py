"""The upstream of every measurement: answers from memory, fast enough that the client is what is measured.

    python -m benchmarks.server CORE

Prints its port. `/1m` is a body of 1 MB, `/stream` the same in chunks; a request with a body is answered when it has
all arrived.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

from benchmarks.cores import pin

MEGABYTE = 1_000_000
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
_CHUNK = 16_000
_CHUNKS = b"%x\r\n%b\r\n" % (_CHUNK, bytes(_CHUNK))
_OK = _HEAD + b"content-length: 2\r\n\r\nok"
_ANSWERS = {
    b"/1m": _HEAD + b"content-length: %d\r\n\r\n" % MEGABYTE + bytes(MEGABYTE),
    b"/stream": _HEAD + b"transfer-encoding: chunked\r\n\r\n" + _CHUNKS * (MEGABYTE // _CHUNK) + b"0\r\n\r\n",
}


class Server(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""

    def data_received(self, data: bytes) -> None:
        """Requests."""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """What is asked for."""
        self.url = url

    def on_message_complete(self) -> None:
        """Answer."""
        self.transport.write(_ANSWERS.get(self.url, _OK))


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    pin(int(sys.argv[1]))
    uvloop.run(serve())
