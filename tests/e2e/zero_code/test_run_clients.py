"""Programs that know nothing of the mesh call through it: every client, each source, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.zero_code.conftest import said
from meshlib.control.ads_server import AdsServer, Resource, ResourceStore
from parts import xds_resources as xds
from parts.fast_backend import FastBackend, Reply

HTTP = """
import asyncio, json, {library} as library
url = "http://payments/charge"

def backend(response):
    return response.headers["x-backend"]

def blocking():
    with library.Client() as client:
        return backend(client.get(url))

def at_once():
    return backend(library.get(url))

async def asynchronous():
    async with library.AsyncClient() as client:
        return backend(await client.get(url))

print(json.dumps([blocking(), at_once(), asyncio.run(asynchronous())]))
"""
GRPC = """
import asyncio, grpc, json
from grpc import aio, insecure_channel

def blocking():
    with insecure_channel("echo") as channel:
        return channel.unary_unary("/test.Echo/Say")(b"sync").decode()

async def asynchronous():
    async with aio.insecure_channel("echo") as channel:
        return (await channel.unary_unary("/test.Echo/Say")(b"aio")).decode()

print(json.dumps([blocking(), asyncio.run(asynchronous())]))
"""


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_http_clients_of_a_program_are_meshed(
    meshlib_run: Any, conf: Path, payments: FastBackend, tmp_path: Path, library: str
) -> None:
    failing = iter([503])  # the first call is retried: it is the mesh that calls
    payments.behave(lambda request: Reply(next(failing, 200)))
    path = program(tmp_path, HTTP.format(library=library))
    assert said(meshlib_run("--config", conf, "--", "python", path)) == ["payments"] * 3
    assert payments.count == 4


def test_grpc_channels_of_a_program_are_meshed(meshlib_run: Any, conf: Path, tmp_path: Path) -> None:
    """The service refuses its first call, and the route has a retry."""
    assert said(meshlib_run("--config", conf, "--", "python", program(tmp_path, GRPC))) == ["sync", "aio"]


@pytest.mark.parametrize("before", [(), ("opentelemetry-instrument",)])
def test_over_xds_the_mesh_does_not_mesh_its_own_stream(
    meshlib_run: Any, echo: int, payments: FastBackend, tmp_path: Path, before: tuple[str, ...]
) -> None:
    """Nor where an instrumentation stands between the stream and the mesh's patch."""
    endpoint = xds.endpoint("127.0.0.1", echo)
    served = [
        (xds.LISTENER, xds.api_listener("echo", "echo")),
        (
            xds.ROUTE_CONFIGURATION,
            xds.route_configuration(
                "echo",
                {
                    "match": {"prefix": "/"},
                    "route": {"cluster": "echo", "retry_policy": {"retry_on": "unavailable", "num_retries": 1}},
                },
            ),
        ),
        (xds.CLUSTER, xds.eds_cluster("echo")),
        (xds.CLUSTER_LOAD_ASSIGNMENT, xds.assignment("echo", endpoint)),
    ]
    store = ResourceStore(Resource.of_message(xds.message(*item)) for item in served)
    with AdsServer(store) as server:
        command = (*before, "python", program(tmp_path, GRPC))
        silent = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
        done = meshlib_run("--xds", f"127.0.0.1:{server.port}", "--", *command, **silent)
        assert said(done) == ["sync", "aio"]


LEFT_ALONE = """
import httpx, json, sys

class Own(httpx.BaseTransport):
    def handle_request(self, request):
        return httpx.Response(200, text="own")

with httpx.Client(transport=Own()) as client:
    print(json.dumps([client.get("http://payments/").text, httpx.get(sys.argv[1]).headers["x-backend"]]))
"""


def test_a_transport_of_its_own_and_hosts_unknown_to_the_mesh_are_left_alone(
    meshlib_run: Any, conf: Path, payments: FastBackend, other: FastBackend, tmp_path: Path
) -> None:
    done = meshlib_run("--config", conf, "--", "python", program(tmp_path, LEFT_ALONE), other.url)
    assert said(done) == ["own", "other"]
    assert payments.count == 0


def test_unknown_hosts_can_be_rejected_by_the_environment(
    meshlib_run: Any, conf: Path, other: FastBackend, tmp_path: Path
) -> None:
    done = meshlib_run(
        *("--config", conf, "--", "python", program(tmp_path, LEFT_ALONE), other.url), MESHLIB_UNKNOWN_HOSTS="reject"
    )
    assert done.returncode == 1
    assert "unknown hosts are rejected" in done.stderr
    assert other.count == 0


def test_what_a_program_does_not_import_is_not_imported_for_it(meshlib_run: Any, conf: Path, tmp_path: Path) -> None:
    text = "import json, sys; print(json.dumps([m for m in ('httpx', 'grpc', 'yaml', 'uvicorn') if m in sys.modules]))"
    assert said(meshlib_run("--config", conf, "--", "python", program(tmp_path, text))) == []


def test_children_of_a_program_are_meshed_too(
    meshlib_run: Any, conf: Path, payments: FastBackend, tmp_path: Path
) -> None:
    child = program(tmp_path, HTTP.format(library="httpx"))
    parent = tmp_path / "parent.py"
    parent.write_text(f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, {child!r}]))")
    assert said(meshlib_run("--config", conf, "--", "python", parent)) == ["payments"] * 3


def test_a_sitecustomize_of_the_users_still_runs(meshlib_run: Any, conf: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import builtins\nbuiltins.theirs_ran = __file__\n")
    text = "import httpx, json; print(json.dumps([theirs_ran, httpx.get('http://payments/').headers['x-backend']]))"
    command = ("--config", conf, "--", "env", f"PYTHONPATH={theirs}", "python", program(tmp_path, text))
    plain = meshlib_run(*command)
    assert plain.returncode == 1, "a program that replaces PYTHONPATH takes itself out of the mesh"
    both = tmp_path / "both.py"
    both.write_text(text)
    shell = f'PYTHONPATH="$PYTHONPATH:{theirs}" exec python {both}'
    assert said(meshlib_run("--config", conf, "--", "sh", "-c", shell)) == [
        str(theirs / "sitecustomize.py"),
        "payments",
    ]


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (["--", "python", "x.py"], {}, "nothing says where the mesh's configuration comes from"),
        (["--config", "missing", "--", "python"], {}, "MESHLIB_CONFIG: missing: no such file or folder"),
        (["--config", "."], {}, "which program?"),
        (["--config", ".", "--", "no-such-program"], {}, "no-such-program: no such program on PATH"),
        (["--", "python"], {"MESHLIB_CONFG": "."}, "did you mean MESHLIB_CONFIG?"),
        (["--config", ".", "--", "python"], {"MESHLIB_DRAIN_SECONDS": "x"}, "MESHLIB_DRAIN_SECONDS: 'x' is no number"),
    ],
)
def test_what_is_wrong_is_said_before_the_program_starts(
    meshlib_run: Any, arguments: list[str], more: dict[str, str], message: str
) -> None:
    done = meshlib_run(*arguments, **more)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches(meshlib_run: Callable[..., Any]) -> None:
    done = meshlib_run("--help")
    assert done.returncode == 0
    for word in ("MESHLIB_RATE_LIMITS", "uvicorn shop.main:app", "opentelemetry-instrument", "--consul"):
        assert word in done.stdout


def test_what_is_patched_of_httpx_is_there() -> None:
    """Neither method is public: when a release renames one, this says so before users do."""
    import httpx
    import httpx2

    for library in (httpx, httpx2):
        for client in (library.Client, library.AsyncClient):
            assert callable(client._init_transport)
            assert callable(client._init_proxy_transport)


def test_the_exit_code_is_the_programs(meshlib_run: Any, conf: Path) -> None:
    assert meshlib_run("--config", conf, "--", "python", "-c", "import sys; sys.exit(7)").returncode == 7
    assert json.loads(meshlib_run("--config", conf, "python", "-c", "print(1)").stdout) == 1, "-- may be left out"
