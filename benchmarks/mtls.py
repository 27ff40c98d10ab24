"""Calls by mutual TLS: httpx with nothing around it, and through the mesh with all policies, to one server.

Both show a client certificate and check the server's: bare httpx its DNS name, the mesh its SPIFFE ID.

python -m benchmarks.mtls '{"core": ..., "server_core": ..., "quick": ...}'
python -m benchmarks.mtls serve CORE FOLDER
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cores import pin
from benchmarks.peers import HEADERS, inherit_a_deadline
from benchmarks.server import Server
from benchmarks.topology import SERVICE, bootstrap, write
from benchmarks.worker import run

BARE, MESH = "httpx, TLS", "meshlib (httpx), mTLS"
SERVER_ID, CLIENT_ID = "spiffe://bench.test/ns/shop/sa/payments", "spiffe://bench.test/ns/shop/sa/checkout"
_PATH = "/charge"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """The median call of each, asyncio and blocking, taking turns."""
    rounds = 8 if options["quick"] else 30
    calls = 30  # short turns: what the machine does meanwhile meets both alike
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _issue(folder)
        with _server(options["server_core"], folder) as port:
            inherit_a_deadline()
            return {
                "latency": asyncio.run(_asynchronous(port, folder, rounds, calls)),
                "sync_latency": _blocking(port, folder, rounds, calls),
            }


async def _asynchronous(port: int, folder: Path, rounds: int, calls: int) -> dict[str, float]:
    import httpx

    samples: dict[str, list[float]] = {BARE: [], MESH: []}
    async with (
        httpx.AsyncClient(verify=_context(folder), headers=HEADERS) as bare,
        _mesh(port, folder).http.async_client(headers=HEADERS) as meshed,
    ):
        for turn in range(rounds + 1):
            for name, client, url in ((BARE, bare, f"https://localhost:{port}"), (MESH, meshed, f"http://{SERVICE}")):
                for _ in range(calls):
                    begun = time.perf_counter()
                    await client.get(url + _PATH)
                    if turn:  # the first warms up
                        samples[name].append(time.perf_counter() - begun)
    return {name: statistics.median(times) for name, times in samples.items()}


def _blocking(port: int, folder: Path, rounds: int, calls: int) -> dict[str, float]:
    import httpx

    samples: dict[str, list[float]] = {BARE: [], MESH: []}
    with (
        httpx.Client(verify=_context(folder), headers=HEADERS) as bare,
        _mesh(port, folder).http.client(headers=HEADERS) as meshed,
    ):
        for turn in range(rounds + 1):
            for name, client, url in ((BARE, bare, f"https://localhost:{port}"), (MESH, meshed, f"http://{SERVICE}")):
                for _ in range(calls):
                    begun = time.perf_counter()
                    client.get(url + _PATH)
                    if turn:
                        samples[name].append(time.perf_counter() - begun)
    return {name: statistics.median(times) for name, times in samples.items()}


def _mesh(port: int, folder: Path) -> Any:
    """The mesh of the other measurements, with TLS on its clusters."""
    from meshlib import Mesh

    document = bootstrap([("127.0.0.1", port)])
    ours = folder / "client"
    common = {
        "tls_certificates": [
            {"certificate_chain": {"filename": f"{ours}/tls.crt"}, "private_key": {"filename": f"{ours}/tls.key"}}
        ],
        "validation_context": {
            "trusted_ca": {"filename": f"{ours}/ca.crt"},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": SERVER_ID}}],
        },
    }
    for cluster in document["static_resources"]["clusters"]:
        cluster["transport_socket"] = {"name": "tls", "typed_config": {"@type": _TLS, "common_tls_context": common}}
    return Mesh.from_file(write(folder / "mesh.json", document)).wait_ready()


def _context(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "client" / "ca.crt"))
    context.load_cert_chain(folder / "client" / "tls.crt", folder / "client" / "tls.key")
    return context


def _issue(folder: Path) -> None:
    from meshlib.identity.dev_ca import DevCA

    authority = DevCA.new()
    authority.issue(SERVER_ID, dns_names=["localhost"]).write(folder / "server")
    authority.issue(CLIENT_ID).write(folder / "client")


@contextmanager
def _server(core: int, folder: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.mtls", "serve", str(core), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError("the benchmark's TLS server did not start")
        yield int(line)
    finally:
        process.terminate()
        process.wait(5)


async def _serve(folder: Path) -> None:
    from meshlib.identity import Identity, ServerTls

    context = ServerTls(Identity.from_folder(folder / "server")).context
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        import uvloop

        pin(int(sys.argv[2]))
        uvloop.run(_serve(Path(sys.argv[3])))
    else:
        run(measure)
