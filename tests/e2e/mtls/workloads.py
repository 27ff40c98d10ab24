"""Authorities, workloads with certificate files, servers over mutual TLS in threads: for the tests beside this file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from meshlib import Mesh
from meshlib.http.server import MeshMiddleware
from meshlib.identity import Identity, mtls
from meshlib.identity.dev_ca import DevCA, Issued
from meshlib.integrations.uvicorn import config
from meshlib.model.cluster import Cluster
from meshlib.sources.static import static_cluster

SERVER_ID = "spiffe://demo.test/ns/shop/sa/payments"
CLIENT_ID = "spiffe://demo.test/ns/shop/sa/checkout"
REFRESH = 0.005


class Workload:
    """A SPIFFE ID with files that follow what `renew` writes."""

    def __init__(self, folder: Path, spiffe_id: str, authority: DevCA) -> None:
        self.folder = folder
        self.spiffe_id = spiffe_id
        self.authority = authority
        self.trusts: tuple[DevCA, ...] = (authority,)
        self.renew()
        self.identity: Identity = Identity.from_folder(folder, refresh_interval=REFRESH)

    def renew(self) -> Issued:
        """Another certificate of the present authority, and the present bundle, into the files."""
        issued = dataclasses.replace(
            self.authority.issue(self.spiffe_id), ca=b"".join(authority.pem for authority in self.trusts)
        )
        issued.write(self.folder)
        return issued

    def until_taken(self) -> None:
        """Wait until what the files hold is in force."""
        self.identity.watch()
        wanted = (self.folder / "tls.crt").read_bytes(), (self.folder / "ca.crt").read_bytes()
        for _ in range(2000):
            material = self.identity.current
            assert material.pair is not None
            assert material.bundle is not None
            if (material.pair.chain, material.bundle.pem) == wanted:
                return
            threading.Event().wait(REFRESH)
        raise AssertionError(f"{self.identity} did not follow its files: {self.identity.problem}")


@dataclasses.dataclass
class Pair:
    """A server and a client that trust each other."""

    authority: DevCA
    server: Workload
    client: Workload

    def trust(self, *authorities: DevCA) -> None:
        """Give both sides another bundle."""
        for workload in (self.server, self.client):
            workload.trusts = authorities
            workload.renew()
        self.until_taken()

    def move_to(self, authority: DevCA) -> None:
        """Give both sides certificates of another authority."""
        self.authority = authority
        for workload in (self.server, self.client):
            workload.authority = authority
            workload.renew()
        self.until_taken()

    def until_taken(self) -> None:
        for workload in (self.server, self.client):
            workload.until_taken()


@contextlib.contextmanager
def pair_of_workloads() -> Iterator[Pair]:
    """A server and a client under one new authority, their files in a folder that goes."""
    with tempfile.TemporaryDirectory() as folder:
        authority = DevCA.new()
        pair = Pair(
            authority,
            Workload(Path(folder, "server"), SERVER_ID, authority),
            Workload(Path(folder, "client"), CLIENT_ID, authority),
        )
        yield pair
        pair.server.identity.close()
        pair.client.identity.close()


async def introduce(scope: Any, receive: Any, send: Any) -> None:
    """An application that says who its caller is, three ways."""
    extensions = scope.get("extensions", {})
    state = scope["state"].get("mesh")
    told = extensions.get("meshlib", {}).get("peer")
    body = json.dumps(
        {
            "state": str(state.peer.spiffe_id) if state is not None and state.peer is not None else None,
            "extension": str(told.spiffe_id) if told is not None else None,
            "tls": extensions.get("tls"),
        }
    ).encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def served(identity: Any, app: Any = None, **options: Any) -> Iterator[int]:
    """uvicorn with mutual TLS on a thread; its port."""
    mesh = Mesh.static({})
    app = app or MeshMiddleware(introduce, mesh=mesh)
    settings = config(app, identity=identity, port=0, log_level="error", lifespan="off", **options)
    with running(uvicorn.Server(settings)) as port:
        yield port


@contextlib.contextmanager
def running(server: uvicorn.Server) -> Iterator[int]:
    """A uvicorn server on a thread; its port."""
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        threading.Event().wait(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def secured_cluster(port: int, *peers: str) -> Cluster:
    """A cluster of one server, reached by mutual TLS."""
    cluster = static_cluster("payments", [f"127.0.0.1:{port}"])
    return dataclasses.replace(cluster, tls=mtls(*(peers or (SERVER_ID,))))


def mesh_to(port: int, identity: Identity | None, *peers: str) -> Mesh:
    """A mesh with that one cluster."""
    return Mesh.static({"payments": secured_cluster(port, *peers)}, identity=identity)


@contextlib.contextmanager
def client_to(port: int, identity: Identity | None, *peers: str) -> Iterator[httpx.Client]:
    """A blocking client of such a mesh."""
    with mesh_to(port, identity, *peers) as mesh, mesh.http.client("payments") as client:
        yield client


class Intruder:
    """A client with a certificate of its own choosing, that keeps its connection and its sessions."""

    def __init__(
        self,
        port: int,
        issued: Issued | None,
        trusts: Sequence[DevCA],
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        alpn: str = "",
    ) -> None:
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.maximum_version = version
        self._context.load_verify_locations(cadata="".join(authority.pem.decode() for authority in trusts))
        if alpn:
            self._context.set_alpn_protocols([alpn])
        if issued is not None:
            identity = Identity.from_pem(issued.certificate, issued.key)
            assert identity.current.pair is not None
            identity.current.pair.load_into(self._context)
        self._session: ssl.SSLSession | None = None
        self._kept: ssl.SSLSocket | None = None

    def connect(self) -> ssl.SSLSocket:
        """A new connection; resumes the session of the last one if the server has offered that."""
        sock = socket.create_connection(("127.0.0.1", self._port), 5)
        return self._context.wrap_socket(sock, session=self._session)

    def keep(self) -> bool:
        """Open the connection to be kept, and make a call on it."""
        self._kept = self.connect()
        return self.call_kept()

    def call_kept(self) -> bool:
        """Whether a call on the kept connection reaches the application."""
        assert self._kept is not None
        return self._call(self._kept)

    def call(self) -> bool:
        """Whether a call on a new connection reaches the application."""
        try:
            connection = self.connect()
        except OSError:
            return False
        with connection:
            return self._call(connection)

    def _call(self, connection: ssl.SSLSocket) -> bool:
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: payments\r\n\r\n")
            answer = _response(connection)
        except OSError:
            return False
        self._session = connection.session or self._session
        return answer.startswith(b"HTTP/1.1 200")

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()


def _response(connection: ssl.SSLSocket) -> bytes:
    """One whole response, so that nothing of it is taken for the next one."""
    answer = b""
    while (end := answer.find(b"\r\n\r\n")) < 0 or len(answer) < end + 4 + _length(answer[:end]):
        more = connection.recv(65536)
        if not more:
            raise ConnectionResetError("closed")
        answer += more
    return answer


def _length(head: bytes) -> int:
    lines = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    return next(int(value) for name, _, value in lines if name == b"content-length")


DAY = timedelta(days=1)
