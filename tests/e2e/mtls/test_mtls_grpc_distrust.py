"""A gRPC connection whose peer's authority is removed: what runs may end, nothing begins, whatever the client does."""

from __future__ import annotations

import contextlib
import queue
import ssl
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from e2e.mtls.workloads import CLIENT_ID, Intruder, Pair, pair_of_workloads
from meshlib.grpc.secure import add_mtls_port
from meshlib.grpc.tunnel.frames import PREFACE
from meshlib.identity.dev_ca import DevCA

UNARY, STREAM = "/shop.Payments/Pay", "/shop.Payments/Echo"
_DATA, _HEADERS, _SETTINGS, _GOAWAY = 0, 1, 4, 7


class Counted(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Counts the calls that reach it."""

    def __init__(self) -> None:
        self.calls = 0

    def service(self, handler_call_details: Any) -> Any:
        def pay(request: bytes, call: Any) -> bytes:
            self.calls += 1
            return b"paid"

        def echo(requests: Iterator[bytes], call: Any) -> Iterator[bytes]:
            yield from requests

        if handler_call_details.method == UNARY:
            return grpc.unary_unary_rpc_method_handler(pay)
        return grpc.stream_stream_rpc_method_handler(echo)


@contextlib.contextmanager
def counting(pair: Pair, grace: float = 30.0) -> Iterator[tuple[int, Counted]]:
    handler = Counted()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = add_mtls_port(server, "127.0.0.1:0", pair.server.identity, grace=grace)
    server.start()
    yield port, handler
    server.stop(None).wait()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pair_of_workloads() as made:
        yield made


def _replace_authority(pair: Pair, new: DevCA) -> None:
    pair.move_to(new)
    pair.trust(new)


def _channel(pair: Pair, port: int, old: DevCA, new: DevCA) -> grpc.Channel:
    ours = old.issue(CLIENT_ID)
    credentials = grpc.ssl_channel_credentials(old.pem + new.pem, ours.key, ours.certificate)
    return grpc.secure_channel(
        f"127.0.0.1:{port}",
        credentials,
        [("grpc.ssl_target_name_override", "payments.test"), ("grpc.enable_retries", 0)],
    )


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates with a DNS name besides: plain gRPC clients can check nothing else."""
    issue = DevCA.issue
    monkeypatch.setattr(DevCA, "issue", lambda ca, spiffe_id: issue(ca, spiffe_id, dns_names=["payments.test"]))


@pytest.mark.usefixtures("named")
def test_a_stream_that_runs_goes_on_and_nothing_new_begins(pair: Pair) -> None:
    pair.server.renew()
    pair.server.until_taken()
    old, new = pair.authority, DevCA.new()
    pair.trust(old, new)
    with counting(pair) as (port, handler), _channel(pair, port, old, new) as channel:
        asked: queue.Queue[bytes | None] = queue.Queue()
        answers = channel.stream_stream(STREAM)(iter(asked.get, None), timeout=30)
        asked.put(b"before")
        assert next(answers) == b"before"
        _replace_authority(pair, new)
        asked.put(b"after")
        assert next(answers) == b"after"
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(UNARY)(b"", timeout=2)
        asked.put(None)
        assert list(answers) == []
        assert answers.code() is grpc.StatusCode.OK
        assert handler.calls == 0


@pytest.mark.usefixtures("named")
def test_a_stream_without_an_end_is_cut_after_the_grace(pair: Pair) -> None:
    pair.server.renew()
    pair.server.until_taken()
    old, new = pair.authority, DevCA.new()
    pair.trust(old, new)
    with counting(pair, grace=0.2) as (port, _), _channel(pair, port, old, new) as channel:
        asked: queue.Queue[bytes | None] = queue.Queue()
        answers = channel.stream_stream(STREAM)(iter(asked.get, None), timeout=30)
        asked.put(b"before")
        assert next(answers) == b"before"
        _replace_authority(pair, new)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        asked.put(None)


def test_a_client_that_ignores_the_goaway_reaches_nothing(pair: Pair) -> None:
    old, new = pair.authority, DevCA.new()
    pair.trust(old, new)
    with counting(pair) as (port, handler):
        client = RawClient(Intruder(port, old.issue(CLIENT_ID), [old, new], alpn="h2").connect())
        client.call(1)
        assert b"paid" in client.read_until(_DATA)
        _replace_authority(pair, new)
        assert client.read_until(_GOAWAY)[:4] == (1).to_bytes(4, "big"), "the last stream that was looked at"
        client.call(3)
        assert client.silent()
        assert handler.calls == 1
        client.close()


def test_a_connection_made_while_the_authority_goes_is_not_missed(pair: Pair) -> None:
    """Handshakes begun under the old bundle, finished under the new: by the check at their end, or by the review."""
    old, new = pair.authority, DevCA.new()
    anchor = ssl.PEM_cert_to_DER_cert(old.pem.decode())
    pair.trust(old, new)
    pair.move_to(new)
    with counting(pair) as (port, handler):
        stop, accepted_late = threading.Event(), []

        def knock() -> None:
            intruder = Intruder(port, old.issue(CLIENT_ID), [old, new], alpn="h2")
            while not stop.is_set():
                bundle = pair.server.identity.current.bundle
                gone = bundle is not None and anchor not in bundle.anchors
                with contextlib.suppress(OSError), intruder.connect() as connection:
                    client = RawClient(connection)
                    client.call(1)
                    if b"paid" in client.read_until(_DATA) and gone:
                        accepted_late.append(connection)

        knockers = [threading.Thread(target=knock) for _ in range(3)]
        for knocker in knockers:
            knocker.start()
        while handler.calls < 10:
            threading.Event().wait(0.005)
        pair.trust(new)
        threading.Event().wait(0.3)
        stop.set()
        for knocker in knockers:
            knocker.join()
        assert accepted_late == []


class RawClient:
    """Speaks HTTP/2 by hand, and need not follow its rules."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        connection.settimeout(5)
        connection.sendall(PREFACE + _frame(_SETTINGS, 0, 0, b""))
        self._read = b""

    def call(self, stream: int) -> None:
        """Begin a unary call, request and all."""
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": UNARY,
            ":authority": "payments",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        self._connection.sendall(_frame(_HEADERS, 4, stream, block) + _frame(_DATA, 1, stream, bytes(5)))

    def read_until(self, kind: int) -> bytes:
        """The payload of the next frame of a kind."""
        while True:
            while len(self._read) < 9 or len(self._read) < 9 + int.from_bytes(self._read[:3], "big"):
                more = self._connection.recv(65536)
                if not more:
                    raise ConnectionResetError("closed")
                self._read += more
            length = int.from_bytes(self._read[:3], "big")
            found, payload = self._read[3], self._read[9 : 9 + length]
            self._read = self._read[9 + length :]
            if found == kind:
                return payload

    def silent(self) -> bool:
        """Whether no answer comes for a while."""
        self._connection.settimeout(0.3)
        try:
            self.read_until(_HEADERS)
        except OSError:
            return True
        return False

    def close(self) -> None:
        self._connection.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()
