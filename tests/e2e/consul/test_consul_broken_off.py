"""A connection to an agent that is given up at the last moment of its TLS handshake leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest
import trustme

from meshlib.sources.consul import http1
from meshlib.sources.consul.address import parse_consul_address


def shake_hands(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Once, and listen until the other end is gone."""
    accepted, _ = listener.accept()
    with accepted, contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as peer:
        while peer.recv(1024):
            pass


def test_given_up_when_the_handshake_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio lets go of it at once, and does not wait for the other end's good-bye on a socket that is closed."""
    ca = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.configure_trust(ours)
    ca.issue_cert("localhost").configure_cert(theirs)
    steps: list[str] = []

    async def run(port: int) -> None:
        address, opened = parse_consul_address(f"https://127.0.0.1:{port}"), lambda _: lambda: steps.append("closed")
        opening = asyncio.create_task(http1.connect(address, ours, "localhost", opened))

        class CancelledNow(http1._Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                opening.cancel()

            def connection_lost(self, error: Exception | None) -> None:
                super().connection_lost(error)
                steps.append("let go of")

        monkeypatch.setattr(http1, "_Protocol", CancelledNow)
        with pytest.raises(asyncio.CancelledError):
            await opening

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=shake_hands, args=(listener, theirs))
        serving.start()
        asyncio.run(run(listener.getsockname()[1]))
        serving.join(10)
    assert steps == ["closed", "let go of"]
