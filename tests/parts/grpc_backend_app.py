"""A gRPC service that answers with its name and misbehaves by script (grpc_echo.proto), on threads or on asyncio.

An error before the first answer is trailers-only, as a real server's is, unless the script says `headers_first`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from parts.grpc_script import Book, Part, die
from parts.grpc_stubs import Stubs

CODES = {code.value[0]: code for code in grpc.StatusCode}
FOREVER = 3600.0
OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 2000), ("grpc.max_receive_message_length", -1))


class SyncEcho:
    """The service on threads. A handler whose caller goes away ends at once, so that its thread is free."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def Unary(self, ask: Any, context: Any) -> Any:  # noqa: N802
        with self._call(context) as gone:
            part = self._book.arrive(ask)
            self._before(part, context, gone)
            self._end(part, context)
            return self._book.answer(part, context, 1, 1)

    def ServerStream(self, ask: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        with self._call(context) as gone:
            part = self._book.arrive(ask)
            self._before(part, context, gone)
            for number in range(1, part.answers + 1):
                yield self._book.answer(part, context, number, 1)
                gone.wait(part.script.pause)
            self._end(part, context)

    def ClientStream(self, asks: Iterator[Any], context: Any) -> Any:  # noqa: N802
        with self._call(context) as gone:
            part, heard = None, 0
            for heard, ask in enumerate(asks, 1):  # noqa: B007  how many there were is the answer
                if part is None:
                    part = self._book.arrive(ask)
                    self._before(part, context, gone)
            part = part or self._book.arrive(self._book.empty)
            self._end(part, context)
            return self._book.answer(part, context, 1, heard)

    def Both(self, asks: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        with self._call(context) as gone:
            part, heard = None, 0
            for heard, ask in enumerate(asks, 1):
                if part is None:
                    part = self._book.arrive(ask)
                    self._before(part, context, gone)
                if part.script.answers and heard > part.script.answers:
                    break
                if not (part.status and not part.script.answers):
                    yield self._book.answer(Part(part.script, part.arrival, ask.text), context, heard, heard)
                    gone.wait(part.script.pause)
                else:
                    break
            if part is not None:
                self._end(part, context)

    @contextlib.contextmanager
    def _call(self, context: Any) -> Iterator[threading.Event]:
        gone = threading.Event()
        context.add_callback(gone.set)
        self._book.enter()
        try:
            yield gone
        finally:
            self._book.leave(gone.is_set())

    def _before(self, part: Part, context: Any, gone: threading.Event) -> None:
        context.set_trailing_metadata(self._book.trailing(part))
        script = part.script
        if script.headers_first or not (part.status and not script.answers):
            context.send_initial_metadata(self._book.initial(part))
        gone.wait(FOREVER if script.hang else script.delay)

    def _end(self, part: Part, context: Any) -> None:
        if part.script.die:
            die()
        if part.status:
            context.abort(CODES[part.status], part.script.details)


class AioEcho:
    """The service on asyncio."""

    def __init__(self, book: Book) -> None:
        self._book = book

    async def Unary(self, ask: Any, context: Any) -> Any:  # noqa: N802
        with self._call():
            part = self._book.arrive(ask)
            await self._before(part, context)
            await self._end(part, context)
            return self._book.answer(part, context, 1, 1)

    async def ServerStream(self, ask: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        with self._call():
            part = self._book.arrive(ask)
            await self._before(part, context)
            for number in range(1, part.answers + 1):
                yield self._book.answer(part, context, number, 1)
                await asyncio.sleep(part.script.pause)
            await self._end(part, context)

    async def ClientStream(self, asks: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        with self._call():
            part, heard = None, 0
            async for ask in asks:
                heard += 1
                if part is None:
                    part = self._book.arrive(ask)
                    await self._before(part, context)
            part = part or self._book.arrive(self._book.empty)
            await self._end(part, context)
            return self._book.answer(part, context, 1, heard)

    async def Both(self, asks: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        with self._call():
            part, heard = None, 0
            async for ask in asks:
                heard += 1
                if part is None:
                    part = self._book.arrive(ask)
                    await self._before(part, context)
                if part.script.answers and heard > part.script.answers:
                    break
                if not (part.status and not part.script.answers):
                    yield self._book.answer(Part(part.script, part.arrival, ask.text), context, heard, heard)
                    await asyncio.sleep(part.script.pause)
                else:
                    break
            if part is not None:
                await self._end(part, context)

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        self._book.enter()
        cancelled = False
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            cancelled = True
            raise
        finally:
            self._book.leave(cancelled)

    async def _before(self, part: Part, context: Any) -> None:
        context.set_trailing_metadata(tuple(self._book.trailing(part)))
        script = part.script
        if script.headers_first or not (part.status and not script.answers):
            await context.send_initial_metadata(tuple(self._book.initial(part)))
        await asyncio.sleep(FOREVER if script.hang else script.delay)

    async def _end(self, part: Part, context: Any) -> None:
        if part.script.die:
            die()
        if part.status:
            await context.abort(CODES[part.status], part.script.details)


class EveryPath(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves the unary method under every path that begins with /p, which no service of the tests or of gRPC does."""

    def __init__(self, stubs: Stubs, echo: SyncEcho | AioEcho) -> None:
        messages = stubs.messages
        parse, serialize = messages.Ask.FromString, messages.Answer.SerializeToString
        self._unary = grpc.unary_unary_rpc_method_handler(echo.Unary, parse, serialize)

    def service(self, handler_call_details: Any) -> Any:
        return self._unary if handler_call_details.method[:2] in ("/p", "/P") else None


class Control:
    """The test's hand on the backend; plain functions, which both servers can call."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def Look(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._book.state()

    def Behave(self, script: Any, context: Any) -> Any:  # noqa: N802
        self._book.behave(script)
        return self._book.state()

    def Reset(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._book.reset()
        return self._book.state()


def bind(server: Any, options: argparse.Namespace) -> int:
    address = f"127.0.0.1:{options.port}"
    if not options.key:
        return int(server.add_insecure_port(address))
    key, chain = options.key.read_bytes(), options.certificate.read_bytes()
    roots = options.roots.read_bytes() if options.roots else None
    credentials = grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=roots is not None)
    return int(server.add_secure_port(address, credentials))


def serve_sync(stubs: Stubs, book: Book, options: argparse.Namespace) -> None:
    server = grpc.server(ThreadPoolExecutor(options.threads), options=OPTIONS)
    echo = SyncEcho(book)
    stubs.services.add_EchoServicer_to_server(echo, server)
    server.add_generic_rpc_handlers((EveryPath(stubs, echo),))
    stubs.services.add_ControlServicer_to_server(Control(book), server)
    port = bind(server, options)
    server.start()
    print(f"port {port}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: server.stop(options.grace))
    server.wait_for_termination()


async def serve_aio(stubs: Stubs, book: Book, options: argparse.Namespace) -> None:
    server = grpc.aio.server(ThreadPoolExecutor(2), options=OPTIONS)
    echo = AioEcho(book)
    stubs.services.add_EchoServicer_to_server(echo, server)
    server.add_generic_rpc_handlers((EveryPath(stubs, echo),))
    stubs.services.add_ControlServicer_to_server(Control(book), server)
    port = bind(server, options)
    await server.start()
    print(f"port {port}", flush=True)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()
    await server.stop(options.grace)


def main() -> None:
    """`python -m parts.grpc_backend_app --name NAME --stubs FOLDER`: prints `port N` when it accepts connections."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--stubs", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--kind", choices=("aio", "sync"), default="aio")
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--grace", type=float, default=0.5)
    for name in ("key", "certificate", "roots"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    stubs = Stubs(options.stubs)
    book = Book(options.name, stubs.messages)
    if options.kind == "aio":
        asyncio.run(serve_aio(stubs, book, options))
    else:
        serve_sync(stubs, book, options)


if __name__ == "__main__":
    main()
