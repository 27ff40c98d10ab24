"""Calls of the Echo service as values, and what came of them: the same through any channel, blocking or asyncio.

As a program it is grpcio's own client in a process of its own (`GRPC_XDS_BOOTSTRAP_CONFIG` says the control plane):
`python -m parts.grpc_calls STUBS`; a line of JSON in, a line of JSON out.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from parts.grpc_stubs import Stubs

Pairs = tuple[tuple[str, str], ...]
TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class GrpcCall:
    """One call. Values of `-bin` metadata, and of a script's metadata, are base64, because JSON has no bytes. The kind
    "Missing" is a unary method that nobody serves; a kind that starts with "/" is the path of a unary method.
    """

    kind: str = "Unary"
    text: str = "hello"
    key: str = ""
    script: dict[str, Any] = field(default_factory=dict)
    metadata: Pairs = ()
    timeout: float | None = 8.0
    requests: int = 2
    cancel_after: int = 0
    """Answers after which the caller cancels; 0: it does not."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a call: status, its words, and what was received."""

    code: str
    details: str = ""
    backends: tuple[str, ...] = ()
    arrival: int = 0
    initial: Pairs = ()
    trailing: Pairs = ()
    metadata: Pairs = ()
    remaining: float = -1.0
    flag: str = ""

    @property
    def backend(self) -> str:
        return self.backends[0] if self.backends else ""

    @property
    def answers(self) -> int:
        return len(self.backends)


def perform(stubs: Stubs, echo: Any, call: GrpcCall) -> Ended:
    """Make the call through a blocking stub."""
    answers: list[Any] = []
    asked = _options(call)
    try:
        if call.kind in ("Unary", "Missing") or call.kind.startswith("/"):
            method = echo.at(call.kind) if call.kind.startswith("/") else getattr(echo, call.kind)
            answer, rpc = method.with_call(_ask(stubs, call), **asked)
            answers.append(answer)
        elif call.kind == "ClientStream":
            answer, rpc = echo.ClientStream.with_call(_asks(stubs, call), **asked)
            answers.append(answer)
        else:
            request = _ask(stubs, call) if call.kind == "ServerStream" else _asks(stubs, call)
            rpc = getattr(echo, call.kind)(request, **asked)
            for answer in rpc:
                answers.append(answer)
                if len(answers) == call.cancel_after:
                    rpc.cancel()
    except grpc.RpcError as error:
        return _failed(error, answers)
    return _ended(answers, "OK", rpc.details() or "", rpc.initial_metadata(), rpc.trailing_metadata())


async def aperform(stubs: Stubs, echo: Any, call: GrpcCall) -> Ended:
    """Make the call through an asyncio stub."""
    answers: list[Any] = []
    streams = call.kind in ("ClientStream", "Both")
    request: Any = iter(_asks(stubs, call)) if streams else _ask(stubs, call)
    rpc = getattr(echo, call.kind)(request, **_options(call))
    try:
        if call.kind in ("Unary", "Missing", "ClientStream"):
            answers.append(await rpc)
        else:
            async for answer in rpc:
                answers.append(answer)
                if len(answers) == call.cancel_after:
                    rpc.cancel()
        initial, trailing = await rpc.initial_metadata(), await rpc.trailing_metadata()
        return _ended(answers, (await rpc.code()).name, await rpc.details() or "", initial, trailing)
    except grpc.RpcError as error:
        return _failed(error, answers)
    except asyncio.CancelledError:
        if call.cancel_after:
            return _ended(answers, "CANCELLED", "", (), ())
        raise


def _options(call: GrpcCall) -> dict[str, Any]:
    metadata = [(name, base64.b64decode(value) if name.endswith("-bin") else value) for name, value in call.metadata]
    return {"timeout": call.timeout, "metadata": metadata}


def _ask(stubs: Stubs, call: GrpcCall) -> Any:
    pairs = {
        name: [(key, base64.b64decode(value)) for key, value in call.script[name]]
        for name in ("initial", "trailing")
        if name in call.script
    }
    return stubs.ask(call.text, key=call.key, **{**call.script, **pairs})


def _asks(stubs: Stubs, call: GrpcCall) -> Any:
    return iter([_ask(stubs, call) for _ in range(call.requests)])


def _failed(error: Any, answers: list[Any]) -> Ended:
    flag = getattr(error, "flag", "")
    return _ended(
        answers, error.code().name, error.details() or "", error.initial_metadata(), error.trailing_metadata(), flag
    )


def _ended(answers: list[Any], code: str, details: str, initial: Any, trailing: Any, flag: Any = "") -> Ended:
    first = answers[0] if answers else None
    return Ended(
        code,
        details,
        tuple(answer.backend for answer in answers),
        first.arrival if first else 0,
        _pairs(initial),
        _pairs(trailing),
        tuple((pair.name, _text(pair.value)) for pair in first.metadata) if first else (),
        first.remaining if first else -1.0,
        str(flag or ""),
    )


def _pairs(metadata: Any) -> Pairs:
    return tuple((name, _text(value)) for name, value in metadata or ())


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


class XdsCaller:
    """grpcio's `xds:///` in a process of its own, on the control plane at `server`."""

    def __init__(self, server: str, stubs: Stubs, log: Path) -> None:
        servers = [{"server_uri": server, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}]
        bootstrap = {"xds_servers": servers, "node": {"id": "grpcio", "locality": {"region": "test"}}}
        self._lock = threading.Lock()
        self._number = 0
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "parts.grpc_calls", str(stubs.folder)],
            env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap), "PYTHONPATH": str(TESTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def calls(self, target: str, calls: Sequence[GrpcCall], *, together: bool = False) -> list[Ended]:
        """Make the calls one after the other, or all at once."""
        with self._lock:
            self._number += 1
            number = self._number
            order = {
                "number": number,
                "target": target,
                "together": together,
                "calls": [asdict(call) for call in calls],
            }
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
            while answer["number"] != number:  # of a test that ran out of time
                answer = json.loads(self._process.stdout.readline())
        return [Ended(**_tuples(one)) for one in answer["ended"]]

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()


def _tuples(ended: dict[str, Any]) -> dict[str, Any]:
    pairs = {name: tuple(tuple(pair) for pair in ended[name]) for name in ("initial", "trailing", "metadata")}
    return {**ended, **pairs, "backends": tuple(ended["backends"])}


def main() -> None:
    """Serve orders from standard input."""
    stubs = Stubs(Path(sys.argv[1]))
    channels: dict[str, Any] = {}
    with ThreadPoolExecutor(64) as threads:
        for line in sys.stdin:
            order = json.loads(line)
            target = order["target"]
            if target not in channels:
                channels[target] = grpc.insecure_channel(target)
            echo = stubs.echo(channels[target])
            calls = [GrpcCall(**{**call, "metadata": tuple(map(tuple, call["metadata"]))}) for call in order["calls"]]
            run: Any = threads.map if order["together"] else map
            ended = run(partial(perform, stubs, echo), calls)
            print(json.dumps({"number": order["number"], "ended": [asdict(one) for one in ended]}), flush=True)


if __name__ == "__main__":
    main()
