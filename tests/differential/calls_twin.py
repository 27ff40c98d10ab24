"""One bootstrap file, followed by a real Envoy and by a mesh: the same calls through both, told in the same words."""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from meshlib import Mesh
from meshlib.errors import CallError
from meshlib.explain import Explainer
from parts.envoy_server import EnvoyServer

Json = dict[str, Any]
EXTENSIONS = "type.googleapis.com/envoy.extensions"
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"},
}
CALL_ID = "x-call-id"
AUTHORITY = "mesh.test"


@dataclass(frozen=True, slots=True)
class Call:
    """A request to send; `id` tells it from the others at the backends and in Envoy's access log."""

    id: str
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "GET"
    authority: str = AUTHORITY
    body: bytes | None = None

    @property
    def sent(self) -> list[tuple[str, str]]:
        return [("Host", self.authority), (CALL_ID, self.id), *self.headers]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller got. `whole` is False when the body broke off; `flag` is the mesh's own word for a failure."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    whole: bool = True
    flag: str = ""

    @property
    def backend(self) -> str:
        return dict(self.headers).get("x-backend", "")


class Twin:
    """Asks both. `close` when done."""

    def __init__(self, start: Callable[..., EnvoyServer], folder: Path, bootstrap: Json, workers: int = 32) -> None:
        self._log = folder / "access.log"
        whole = with_access_log(bootstrap, self._log)
        self.envoy = start(whole, args=("--file-flush-interval-msec", "20"))
        self._port = self.envoy.port
        path = folder / "bootstrap.json"
        path.write_text(json.dumps(whole))
        self.mesh = Mesh.from_file(path, unknown_hosts="reject", seed=1)
        self.mesh.start().wait_ready()
        assert not [issue for issue in self.mesh.issues if issue.severity == "error"], self.mesh.issues
        self.explainer = Explainer.from_files(path, seed=1, reject_unknown=True)
        self._transport = self.mesh.http.transport()
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(workers)
        self._connections: list[http.client.HTTPConnection] = []

    def theirs(self, call: Call) -> Answer:
        """The call through Envoy."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            self._connections.append(connection)
        connection.putrequest(call.method, call.path, skip_host=True, skip_accept_encoding=True)
        for name, value in call.sent:
            connection.putheader(name, value)
        if call.body is not None:
            connection.putheader("content-length", str(len(call.body)))
        connection.endheaders(call.body)
        response = connection.getresponse()
        headers = tuple((name.lower(), value) for name, value in response.getheaders())
        try:
            return Answer(response.status, headers, response.read())
        except (http.client.HTTPException, ConnectionError):
            connection.close()
            return Answer(response.status, headers, whole=False)

    def ours(self, call: Call) -> Answer:
        """The call through the mesh."""
        try:
            response = self._transport.handle_request(_request(call))
        except CallError as error:
            return _refused(error)
        try:
            body = response.read()
        except CallError as error:
            return _answer(response, b"", error)
        finally:
            response.close()
        return _answer(response, body)

    def ours_aio(self, calls: Sequence[Call]) -> list[tuple[Answer, float]]:
        """The calls through the mesh's asyncio door, one after the other, and the seconds each took."""

        async def run() -> list[tuple[Answer, float]]:
            transport = self.mesh.http.async_transport()
            try:
                return [await timed(transport, call) for call in calls]
            finally:
                await transport.aclose()

        async def timed(transport: httpx.AsyncBaseTransport, call: Call) -> tuple[Answer, float]:
            began = time.monotonic()
            answer = await _ask(transport, call)
            return answer, time.monotonic() - began

        return asyncio.run(run())

    def both(self, calls: Sequence[Call]) -> list[tuple[Answer, Answer]]:
        """(Envoy's answer, ours) for each call; ids get a prefix for the backends. One call after the other, the two
        sides at the same time.
        """
        theirs = self._threads.submit(lambda: [self.theirs(marked("envoy", call)) for call in calls])
        ours = [self.ours(marked("mesh", call)) for call in calls]
        return list(zip(theirs.result(), ours, strict=True))

    def all_doors(self, calls: Sequence[Call]) -> list[tuple[Answer, Answer, Answer]]:
        """As `both`, with the mesh's asyncio door third."""
        aio = self._threads.submit(lambda: self.ours_aio([marked("aio", call) for call in calls]))
        return [(*pair, answer) for pair, (answer, _) in zip(self.both(calls), aio.result(), strict=True)]

    def at_once(self, send: Callable[[Call], Answer], calls: Sequence[Call]) -> list[Answer]:
        """All of the calls at the same time, a thread each."""
        return list(self._threads.map(send, calls))

    def flags(self, calls: int, timeout: float = 10.0) -> dict[str, frozenset[str]]:
        """Envoy's response flags by call id, once it has logged so many calls."""
        deadline = time.monotonic() + timeout
        while len(lines := self._logged()) < calls:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Envoy has logged {len(lines)} of {calls} calls")
            time.sleep(0.01)
        pairs = (line.split(" ") for line in lines)
        return {call: frozenset(flags.split(",")) - {"-"} for call, flags in pairs}

    def close(self) -> None:
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()
        self._transport.close()
        self.mesh.close()

    def _logged(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


async def _ask(transport: httpx.AsyncBaseTransport, call: Call) -> Answer:
    try:
        response = await transport.handle_async_request(_request(call))
    except CallError as error:
        return _refused(error)
    try:
        body = await response.aread()
    except CallError as error:
        return _answer(response, b"", error)
    finally:
        await response.aclose()
    return _answer(response, body)


def _request(call: Call) -> httpx.Request:
    return httpx.Request(call.method, f"http://{call.authority}{call.path}", headers=call.sent, content=call.body)


def _refused(error: CallError) -> Answer:
    return Answer(error.status, flag=error.flag)


def _answer(response: httpx.Response, body: bytes, broken: CallError | None = None) -> Answer:
    headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers.raw)
    flag = broken.flag if broken else ",".join(sorted(response.extensions["meshlib"].flags))
    return Answer(response.status_code, headers, body, whole=broken is None, flag=flag)


def marked(prefix: str, call: Call) -> Call:
    return Call(f"{prefix}-{call.id}", call.path, call.headers, call.method, call.authority, call.body)


def bootstrap(
    virtual_hosts: Sequence[Json],
    clusters: Sequence[Json],
    filters: Sequence[Json] = (),
    router: Json | None = None,
    runtime: Json | None = None,
    top: Json | None = None,
    **manager: Any,
) -> Json:
    """A sidecar's egress: one listener, one manager, clusters; `top` are fields of the bootstrap itself."""
    connection_manager = {
        "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "out",
        "generate_request_id": False,
        "route_config": {"name": "routes", "virtual_hosts": list(virtual_hosts), "validate_clusters": False},
        "http_filters": [*filters, router or ROUTER],
        **manager,
    }
    listener = {
        "name": "out",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": connection_manager}]}],
    }
    layers = {"layered_runtime": {"layers": [{"name": "static", "static_layer": runtime}]}} if runtime else {}
    resources = {"listeners": [listener], "clusters": list(clusters)}
    return {"node": {"id": "twin", "cluster": "twins"}, "static_resources": resources, **layers, **(top or {})}


def virtual_host(routes: Sequence[Json], **more: Any) -> Json:
    return {"name": "all", "domains": ["*"], "routes": list(routes), **more}


def with_access_log(bootstrap: Json, path: Path) -> Json:
    """The bootstrap with Envoy's flags written to a file; the mesh tells its flags with the answer."""
    log = {
        "name": "file",
        "typed_config": {
            "@type": f"{EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"text_format_source": {"inline_string": f"%REQ({CALL_ID})% %RESPONSE_FLAGS%\n"}},
        },
    }
    copied: Json = json.loads(json.dumps(bootstrap))
    copied["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["access_log"] = [log]
    return copied


def cluster(name: str, ports: Sequence[int], **more: Any) -> Json:
    return {
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint(port) for port in ports]}]},
        **more,
    }


def endpoint(port: int, **more: Any) -> Json:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"endpoint": {"address": address}, **more}
