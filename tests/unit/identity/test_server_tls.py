"""The server's end: sessions of TLS 1.2 that are resumed, and connections that come while authorities go."""

from __future__ import annotations

import logging
import ssl
import sys
import threading
import types
from typing import Any

import pytest

from meshlib.identity import Identity, ServerTls, server
from meshlib.identity.dev_ca import DevCA, Issued

SERVER_ID, CLIENT_ID = "spiffe://demo.test/server", "spiffe://demo.test/client"


class Client:
    """Speaks TLS 1.2 with a server in memory, and keeps its session."""

    def __init__(self, issued: Issued) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        identity = issued.identity().current
        assert identity.pair is not None
        assert identity.bundle is not None
        identity.pair.load_into(self._context)
        identity.bundle.load_into(self._context)
        self._session: ssl.SSLSession | None = None
        self._met: list[Any] = []  # a connection that is dropped without a goodbye takes its session along

    def meets(self, tls: ServerTls) -> Any:
        """The server's end of a new connection; raises what the handshake raises there."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        mine = self._context.wrap_bio(to_client, to_server, session=self._session)
        theirs: Any = tls.context.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(4):
            for end in (mine, theirs):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        self._session = mine.session
        self._met.append(theirs)
        return theirs


@pytest.fixture
def authority() -> DevCA:
    return DevCA.new()


@pytest.fixture
def identity(authority: DevCA) -> Identity:
    return authority.issue(SERVER_ID).identity()


def test_a_resumed_session_has_its_peer(authority: DevCA, identity: Identity) -> None:
    tls, client = ServerTls(identity), Client(authority.issue(CLIENT_ID))
    first, second = client.meets(tls), client.meets(tls)
    assert (first.session_reused, second.session_reused) == (False, True)
    assert second.verified == first.verified
    assert str(second.verified.peer.spiffe_id) == CLIENT_ID
    assert tls.trusts(second.verified)


def test_a_session_is_not_resumed_once_its_authority_is_removed(authority: DevCA, identity: Identity) -> None:
    other = DevCA.new()
    identity.replace(ca=authority.pem + other.pem)
    tls, client = ServerTls(identity), Client(authority.issue(CLIENT_ID))
    assert client.meets(tls).verified
    identity.replace(ca=other.pem)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"no longer trusted|self-signed"):
        client.meets(tls)


def test_a_session_is_not_resumed_once_its_certificate_has_expired(
    authority: DevCA, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, client = ServerTls(identity), Client(authority.issue(CLIENT_ID))
    expires = client.meets(tls).verified.peer.expires_at
    monkeypatch.setattr(server, "time", types.SimpleNamespace(time=lambda: expires + 1))
    with pytest.raises(ssl.SSLCertVerificationError, match="has expired"):
        client.meets(tls)


def test_sessions_of_more_clients_than_are_remembered(
    authority: DevCA, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MAX_VOUCHED", 1)
    tls, client = ServerTls(identity), Client(authority.issue(CLIENT_ID))
    client.meets(tls)
    Client(authority.issue(CLIENT_ID)).meets(tls)
    with pytest.raises(ssl.SSLCertVerificationError, match="no longer trusted"):
        client.meets(tls)
    assert len(tls._vouched) == 1


class Connection:
    def __init__(self, told: list[int], error: Exception | None = None) -> None:
        self._told = told
        self._error = error

    def reconsider(self) -> None:
        self._told.append(id(self))
        if self._error is not None:
            raise self._error


def test_every_connection_is_told_while_others_come(authority: DevCA, identity: Identity) -> None:
    tls, told, stop = ServerTls(identity), [], threading.Event()
    known = [Connection(told) for _ in range(20_000)]
    for connection in known:
        tls.follow(connection)

    def come() -> None:
        while not stop.is_set():
            come_and_gone = [Connection([]) for _ in range(50)]
            for connection in come_and_gone:
                tls.follow(connection)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=come) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        identity.replace(ca=DevCA.new().pem)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    assert set(told) >= {id(connection) for connection in known}


def test_one_that_cannot_be_told_keeps_it_from_no_other(identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    tls, told = ServerTls(identity), []
    closed = [Connection(told, RuntimeError("Event loop is closed")) for _ in range(3)]
    for connection in closed:
        tls.follow(connection)
    with caplog.at_level(logging.ERROR, "meshlib.identity"):
        identity.replace(ca=DevCA.new().pem)
    assert len(told) == 3
    assert "could not be told" in caplog.text
