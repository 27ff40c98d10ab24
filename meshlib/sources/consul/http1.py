"""HTTP/1.1 to a Consul agent over asyncio: one request at a time on a connection, every step bounded in time and size.

Small on purpose: a watch needs a GET that can wait for minutes, TLS, unix sockets and nothing else, and a library that
pools connections for short requests would only be in its way.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshlib.sources.consul.address import ConsulAddress

_MAX_HEAD = 64 * 1024
_MAX_BODY = 64 * 1024 * 1024
_CONNECT_SECONDS = 5.0


class ProtocolError(Exception):
    """What came back is not HTTP, or is too large."""


@dataclass(frozen=True, slots=True)
class Response:
    """Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """An open connection. After any error it is of no use: close it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, close: Callable[[], None]) -> None:
        self._reader = reader
        self._writer = writer
        self._close = close
        self.reusable = True

    async def get(self, target: str, headers: Mapping[str, str], answer_within: float, body_within: float) -> Response:
        """Ask. `answer_within`: seconds until the head has come; `body_within`: seconds from there to the end."""
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self._writer.write("\r\n".join(lines).encode("latin-1"))
        async with asyncio.timeout(answer_within):
            status, answered = await self._head()
        async with asyncio.timeout(body_within):
            body = await self._body(answered)
        self.reusable = self.reusable and answered.get("connection", "").lower() != "close"
        return Response(status, answered, body)

    def close(self) -> None:
        """Let go of the socket at once; what is under way ends with an error."""
        self.reusable = False
        self._writer.transport.abort()
        self._close()

    async def _head(self) -> tuple[int, dict[str, str]]:
        try:
            raw = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the agent closed the connection") from error
        except asyncio.LimitOverrunError as error:
            raise ProtocolError("the head of the answer does not end") from error
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        version, _, rest = first.partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit() and len(code) == 3):
            raise ProtocolError(f"{first[:80]!r} is not an HTTP/1 status line")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise ProtocolError(f"{line[:80]!r} is not a header")
            headers[name.strip().lower()] = value.strip()
        return int(code), headers

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        try:
            if "chunked" in headers.get("transfer-encoding", "").lower():
                return await self._chunks()
            if "content-length" in headers:
                return await self._reader.readexactly(_size(headers["content-length"], 10))
            self.reusable = False
            return await self._until_close()
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the answer was cut short") from error
        except (asyncio.LimitOverrunError, ValueError) as error:
            raise ProtocolError(f"the body of the answer cannot be read: {error}") from error

    async def _chunks(self) -> bytes:
        parts, total = [], 0
        while size := _size((await self._reader.readuntil(b"\r\n")).partition(b";")[0].strip().decode("latin-1"), 16):
            total += size
            if total > _MAX_BODY:
                raise ProtocolError(f"the answer is larger than {_MAX_BODY} bytes")
            parts.append((await self._reader.readexactly(size + 2))[:size])
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            continue  # trailers
        return b"".join(parts)

    async def _until_close(self) -> bytes:
        body = bytearray()
        while part := await self._reader.read(_MAX_HEAD):
            body += part
            if len(body) > _MAX_BODY:
                raise ProtocolError(f"the answer is larger than {_MAX_BODY} bytes")
        return bytes(body)


class _Protocol(asyncio.StreamReaderProtocol):
    """Of a connection that may be broken off at the last moment of its handshake: asyncio would then still say
    good-bye, on a socket that is gone by then.
    """

    _made: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made = transport
        super().connection_made(transport)

    def abort(self) -> None:
        if isinstance(self._made, asyncio.WriteTransport):
            self._made.abort()


async def connect(
    address: ConsulAddress,
    context: ssl.SSLContext | None,
    server_name: str | None,
    opened: Callable[[socket.socket], Callable[[], None]],
) -> Connection:
    """Open a connection within five seconds. `opened` is told of the socket before it is used, and returns what to call
    when it is closed: a forked child has to know the sockets that are not its own.
    """
    async with asyncio.timeout(_CONNECT_SECONDS):
        error: OSError | None = None
        loop = asyncio.get_running_loop()
        for family, place in await _places(address):
            sock = socket.socket(family, socket.SOCK_STREAM)
            closed = opened(sock)
            reader = asyncio.StreamReader(limit=_MAX_HEAD)
            protocol = _Protocol(reader)
            try:
                sock.setblocking(False)
                await loop.sock_connect(sock, place)
                transport, _ = await loop.create_connection(
                    lambda protocol=protocol: protocol,
                    sock=sock,
                    ssl=context,
                    server_hostname=server_name,
                )
            except BaseException as failure:
                protocol.abort()
                sock.close()
                closed()
                if not isinstance(failure, OSError) or isinstance(failure, ssl.SSLError):
                    raise
                error = failure
            else:
                return Connection(reader, asyncio.StreamWriter(transport, protocol, reader, loop), closed)
        raise error or OSError(f"{address.host} has no address")


async def _places(address: ConsulAddress) -> list[tuple[socket.AddressFamily, tuple[object, ...] | str]]:
    if address.socket_path:
        return [(socket.AF_UNIX, address.socket_path)]
    found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [(family, place) for family, _, _, _, place in found]


def _size(text: str, base: int) -> int:
    digits = "0123456789abcdefABCDEF" if base == 16 else "0123456789"
    if not text or any(c not in digits for c in text):
        raise ProtocolError(f"{text[:40]!r} is not a size")
    size = int(text[:20], base)
    if size > _MAX_BODY:
        raise ProtocolError(f"the answer is larger than {_MAX_BODY} bytes")
    return size
