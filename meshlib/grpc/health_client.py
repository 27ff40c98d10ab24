"""The client of `grpc.health.v1.Health` that active health checks ask with (gRPC's "Health Checking Protocol").

Blocking channels, asked without blocking: grpc.aio would take part in the checks' event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.engine.commands import Start
from meshlib.errors import ConfigurationError
from meshlib.grpc import unpatched
from meshlib.grpc.forked import refusals, refusing
from meshlib.grpc.outcome import failed
from meshlib.grpc.subchannels import Settings, SubChannel, SubChannels
from meshlib.model.outcome import Failure
from meshlib.model.protobuf_wire import LENGTH, VARINT, MalformedMessageError, fields, varint
from meshlib.model.request import RequestHead
from meshlib.policy.health import PASSED, FailureKind, Finding

if TYPE_CHECKING:
    from meshlib.balancing.base import Host
    from meshlib.engine.cluster import ClusterPlan
    from meshlib.mesh import Mesh

SERVING = 1
STATUSES = {0: "UNKNOWN", SERVING: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_LATE = (Failure.TIMEOUT, Failure.CONNECT_TIMEOUT)
_parents: list[HealthClient] = []


class HealthClient:
    """Of one mesh."""

    def __init__(self, mesh: Mesh) -> None:
        refused, _ = refusals(bool(_parents), ())
        make = refusing(refused) if refused else unpatched.channel
        self._mesh = mesh
        self._subchannels = SubChannels(mesh.upstreams, make, lambda channel: channel.close())

    def ask(
        self,
        cluster: ClusterPlan,
        host: Host,
        head: RequestHead,
        service: str,
        timeout: float,
        done: Callable[[Finding], None],
    ) -> Callable[[], None]:
        """Begin to ask; `done` is called once, on any thread. Returns what gives the question up."""
        start = _start(cluster, host, head)
        try:
            subchannel = self._subchannels.enter(self._mesh.runtime.plan, start, Settings())
        except ConfigurationError as error:
            done(Finding(FailureKind.NETWORK, str(error)))
            return lambda: None
        metadata = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in head.headers]
        try:
            call = subchannel.channel.unary_unary(head.path).future(request(service), timeout, metadata)
        except BaseException as error:
            subchannel.leave(start)
            if not isinstance(error, ValueError | grpc.RpcError):
                raise
            done(Finding(FailureKind.NETWORK, str(error)))  # the channel was closed meanwhile
            return lambda: None
        call.add_done_callback(lambda ended: _ended(ended, subchannel, start, host, done))
        cancel: Callable[[], None] = call.cancel
        return cancel

    def let_go(self, cluster: ClusterPlan, host: Host, head: RequestHead) -> None:
        """Close the connection it asked over."""
        self._subchannels.forget(_start(cluster, host, head), Settings())

    def keep(self) -> None:
        """In a forked child: these are the parent's. To let go of its channels would close them, which may hang."""
        _parents.append(self)

    def close(self) -> None:
        """Close every connection."""
        self._subchannels.close()


def request(service: str) -> bytes:
    """`HealthCheckRequest`."""
    name = service.encode()
    return varint(1 << 3 | LENGTH) + varint(len(name)) + name if name else b""


def status_of(response: bytes) -> int:
    """Of a `HealthCheckResponse`. Raises MalformedMessageError."""
    found = [value for number, kind, value in fields(response) if (number, kind) == (1, VARINT)]
    return int(found[-1]) if found else 0


def _start(cluster: ClusterPlan, host: Host, head: RequestHead) -> Start:
    return Start(1, cluster, host, head, None, Failure.TIMEOUT, None)


def _ended(call: Any, subchannel: SubChannel, start: Start, host: Host, done: Callable[[Finding], None]) -> None:
    subchannel.leave(start)
    done(_finding(call, host))


def _finding(call: Any, host: Host) -> Finding:
    if call.code() is not grpc.StatusCode.OK:
        outcome = failed(call, host.endpoint.address, None)
        if outcome.failure is None:
            return Finding(FailureKind.ACTIVE, f"{call.code().name}: {call.details()}")
        kind = FailureKind.NETWORK_TIMEOUT if outcome.failure in _LATE else FailureKind.NETWORK
        return Finding(kind, str(outcome.error))
    try:
        status = status_of(call.result())
    except MalformedMessageError as error:
        return Finding(FailureKind.ACTIVE, f"no HealthCheckResponse: {error}")
    return PASSED if status == SERVING else Finding(FailureKind.ACTIVE, STATUSES.get(status, f"status {status}"))
