"""Checks by a connection, and by what comes over it."""

from __future__ import annotations

import asyncio
import contextlib

from meshlib.errors import ConfigurationError
from meshlib.health.probe import Secure, Target, network_failure
from meshlib.identity.upstream import Secured
from meshlib.model.endpoint import Address
from meshlib.model.health import TcpHealthCheck
from meshlib.policy.health import PASSED, FailureKind, Finding, contains

MAX_ANSWER = 1 << 20  # bytes that may come before what is expected
_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class TcpProbe:
    """Of one endpoint. A connection over which the check passed is kept for the next one if `reuse`."""

    def __init__(self, check: TcpHealthCheck, target: Target, secure: Secure, reuse: bool) -> None:
        self._check = check
        self._target = target
        self._secure = secure
        self._reuse = reuse and bool(check.receive)
        self._stream: _Stream | None = None
        self._secured: Secured | None = None

    async def check(self) -> Finding:
        """Connect, and hear what is expected."""
        finding: Finding | None = None
        try:
            stream = await self._open()
            finding = await self._exchange(*stream)
        except (OSError, ValueError, ConfigurationError) as error:  # ValueError: a name that cannot be one
            finding = network_failure(error)
        finally:
            if finding is None or finding.kind is not None or not self._reuse:
                await self.aclose()
        return finding

    async def aclose(self) -> None:
        """Let go of the connection."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream[1].transport.abort()
            with contextlib.suppress(OSError):
                await stream[1].wait_closed()

    async def _open(self) -> _Stream:
        """A connection in the newest TLS, the one kept if it is still good."""
        if self._stream is not None:
            reader, writer = self._stream
            if not (reader.at_eof() or writer.is_closing() or (self._secured is not None and self._secured.stale)):
                return self._stream
            await self.aclose()
        self._secured = self._target.secured(self._secure)
        errors: list[OSError] = []
        for address in self._target.dial:
            try:
                self._stream = await self._connect(address, self._secured)
                self._stream[1].write(_proxy_header(self._check.proxy_protocol, self._stream[1]))
            except OSError as error:
                errors.append(error)
            else:
                return self._stream
        raise errors[0]

    async def _connect(self, address: Address, secured: Secured) -> _Stream:
        name = self._target.server_name(secured)
        if address.path:
            return await asyncio.open_unix_connection(address.path, ssl=secured.context, server_hostname=name)
        return await asyncio.open_connection(address.host, address.port, ssl=secured.context, server_hostname=name)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Finding:
        check, heard = self._check, b""
        if not check.receive:
            return PASSED
        writer.write(check.send)
        await writer.drain()
        while not contains(check.receive, heard):
            data = await reader.read(65536)
            if not data:
                return Finding(FailureKind.NETWORK, f"closed after {len(heard)} bytes, without what is expected")
            heard += data
            if len(heard) > MAX_ANSWER:
                return Finding(FailureKind.NETWORK, f"{len(heard)} bytes, without what is expected")
        return PASSED


def _proxy_header(version: str, writer: asyncio.StreamWriter) -> bytes:
    """What the connection begins with (the PROXY protocol's document, sections 2.1 and 2.2)."""
    if version != "V1":
        return _LOCAL if version else b""
    own, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    if not (isinstance(own, tuple) and isinstance(peer, tuple)):
        return b"PROXY UNKNOWN\r\n"
    family = "TCP6" if ":" in own[0] else "TCP4"
    return f"PROXY {family} {own[0]} {peer[0]} {own[1]} {peer[1]}\r\n".encode()
