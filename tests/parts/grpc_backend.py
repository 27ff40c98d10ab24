"""A real gRPC service in its own process, with a handle to make it misbehave, die and come back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc

from parts.grpc_stubs import Stubs
from parts.process import Process, Server

TESTS = Path(__file__).resolve().parents[1]
PATIENCE = 20.0


class GrpcBackend(Server):
    """One instance of the Echo service, on asyncio or on threads (`kind="sync"`); its answers carry its name."""

    def __init__(self, name: str, stubs: Stubs, log: Path, *, kind: str = "aio", args: tuple[str, ...] = ()) -> None:
        self.name = name
        self.stubs = stubs
        self._log = log
        self._args = ["--kind", kind, *args]
        self.port = 0
        super().__init__()

    @property
    def state(self) -> Any:
        """What it has seen: `count`, `active`, `cancelled`, `arrivals` by key."""
        return self._control("Look", self.stubs.messages.Nothing())

    @property
    def count(self) -> int:
        """Calls that have arrived since it started or was reset."""
        return int(self.state.count)

    def behave(self, **script: Any) -> None:
        """What it does from now on with calls that bring no script of their own; nothing: be good."""
        self._control("Behave", self.stubs.script(**script))

    def reset(self) -> None:
        """Forget behaviour and counts."""
        self._control("Reset", self.stubs.messages.Nothing())

    def log(self) -> str:
        return self._process.log()

    def _start(self) -> Process:
        argv = [sys.executable, "-m", "parts.grpc_backend_app", "--name", self.name, "--port", str(self.port)]
        argv += ["--stubs", str(self.stubs.folder), *self._args]
        process = Process(argv, self._log, env={"PYTHONPATH": str(TESTS)})
        self.port = int(process.wait_line(r"^port (\d+)$")[1])
        return process

    def _control(self, method: str, request: Any) -> Any:
        with grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = self.stubs.services.ControlStub(channel)
            return getattr(stub, method)(request, timeout=PATIENCE, wait_for_ready=True)
