"""gRPC servers in this process, for tests that look inside: on threads, and on a loop in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

T = TypeVar("T")


class SyncHost:
    """`grpc.server` on a free port. `add` puts services on it, as generated code does."""

    def __init__(
        self, add: Callable[[Any], None], interceptors: Sequence[Any] = (), *, credentials: Any = None, **options: Any
    ) -> None:
        self.server = grpc.server(ThreadPoolExecutor(options.pop("threads", 16)), interceptors=interceptors, **options)
        add(self.server)
        self.port = _bind(self.server, credentials)
        self.server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.stop(None).wait()


class LoopThread:
    """An event loop in a thread; `run` does something there and waits for it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class AioHost:
    """`grpc.aio.server` on a free port and a loop of its own."""

    def __init__(
        self, add: Callable[[Any], None], interceptors: Sequence[Any] = (), *, credentials: Any = None, **options: Any
    ) -> None:
        self._loop = LoopThread()

        async def start() -> Any:
            server = grpc.aio.server(ThreadPoolExecutor(8), interceptors=interceptors, **options)
            add(server)
            self.port = _bind(server, credentials)
            await server.start()
            return server

        self.server = self._loop.run(start())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._loop.run(self.server.stop(None))
        del self.server  # its finaliser looks at the loop
        self._loop.stop()


def _bind(server: Any, credentials: Any) -> int:
    address = "127.0.0.1:0"
    return int(server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address))
