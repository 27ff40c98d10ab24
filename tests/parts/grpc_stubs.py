"""Stubs of grpc_echo.proto as a user makes them: by grpcio-tools, into a folder, imported from there."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

PROTO = Path(__file__).with_name("grpc_echo.proto")
MESSAGES, STUBS = "grpc_echo_pb2", "grpc_echo_pb2_grpc"


def generate(folder: Path) -> Path:
    """Run protoc; the folder then holds both modules."""
    argv = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}"]
    argv += [f"--python_out={folder}", f"--grpc_python_out={folder}", PROTO.name]
    made = subprocess.run(argv, capture_output=True, text=True, cwd=PROTO.parent)
    if made.returncode:
        raise RuntimeError(made.stderr)
    return folder


class Stubs:
    """The generated modules: `messages.Ask(...)`, `services.EchoStub(channel)`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        self.messages: Any = importlib.import_module(MESSAGES)
        self.services: Any = importlib.import_module(STUBS)

    def echo(self, channel: Any) -> Any:
        """A stub of the service, over any channel; with a method `Missing` that no server has, and `at(path)`: the
        unary method under another path (see grpc_backend_app).
        """
        stub = self.services.EchoStub(channel)
        serialize, parse = self.messages.Ask.SerializeToString, self.messages.Answer.FromString
        stub.at = functools.cache(lambda path: channel.unary_unary(path, serialize, parse))
        stub.Missing = stub.at("/meshlib.test.Echo/Missing")
        return stub

    def ask(self, text: str = "hello", *, key: str = "", payload: bytes = b"", **script: Any) -> Any:
        """A request with a script in it; `initial` and `trailing` as (name, value) pairs."""
        return self.messages.Ask(text=text, key=key, payload=payload, script=self.script(**script))

    def script(self, **script: Any) -> Any:
        """A standing script, for `GrpcBackend.behave`."""
        for name in ("initial", "trailing"):
            if name in script:
                script[name] = [self.messages.Pair(name=key, value=value) for key, value in script[name]]
        return self.messages.Script(**script)
