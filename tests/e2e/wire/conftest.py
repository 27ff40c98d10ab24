"""Fixtures of the wire's scenarios: a pool behind a door, a server that follows a script, a TLS identity."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.wire.doors import DOORS, SyncDoor
from e2e.wire.raw_server import RawServer
from meshlib.http.wire import Address, PoolStats

IDENTITY = Path(__file__).with_name("localhost.pem")  # self-signed for localhost and 127.0.0.1, made for these tests


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Iterator[Callable[..., SyncDoor]]:
    """door(server_or_address, **pool_options): a pool to send through; closed, and found empty, after the test."""
    made: list[SyncDoor] = []

    def open_door(where: Any, **options: Any) -> SyncDoor:
        address = where if isinstance(where, Address) else Address("127.0.0.1", where.port)
        made.append(DOORS[request.param](address, **options))
        return made[-1]

    yield open_door
    for each in made:
        each.close()
        assert each.stats() == PoolStats(active=0, idle=0, pending=0)


@pytest.fixture
def raw() -> Iterator[Callable[..., Any]]:
    """raw(script, context=, path=): a scripted server; stopped after the test, its assertions raised."""
    servers: list[RawServer] = []

    def start(script: Any, **options: Any) -> Any:
        servers.append(RawServer(script, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@dataclass
class Certificates:
    """A certificate for localhost and 127.0.0.1, and contexts for both sides."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    """Both sides of one TLS identity."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(IDENTITY)
    return Certificates(server, ssl.create_default_context(cafile=str(IDENTITY)))
