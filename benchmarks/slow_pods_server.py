"""The pods of `benchmarks.slow_pod`: eleven servers of one process, of which the last takes longer by 0.2 s.

    python -m benchmarks.slow_pods_server CORE

Prints the ports in one line. An answer takes 2 ms and an exponentially distributed time of 2 ms more.
"""

from __future__ import annotations

import asyncio
import random
import sys
from functools import partial
from typing import cast

import httptools
import uvloop

from benchmarks.cores import pin
from benchmarks.slow_pod_model import LEAST, MEAN, PODS, SLOWER_BY

_OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"


class Pod(asyncio.Protocol):
    """One connection to a pod."""

    def __init__(self, slower_by: float) -> None:
        self.slower_by = slower_by

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Requests."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Answer, in time."""
        takes = LEAST + random.expovariate(1 / MEAN) + self.slower_by
        asyncio.get_running_loop().call_later(takes, self._answer)

    def _answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_OK)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    slow = [0.0] * PODS + [SLOWER_BY]
    servers = [await loop.create_server(partial(Pod, by), "127.0.0.1", 0, backlog=1024) for by in slow]
    print(",".join(str(server.sockets[0].getsockname()[1]) for server in servers), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    pin(int(sys.argv[1]))
    uvloop.run(serve())
