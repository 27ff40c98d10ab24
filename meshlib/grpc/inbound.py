"""What the blocking and the asyncio server interceptor share: whether a call is served, in which context, or how it is
refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc

from meshlib.drivers.shedding import Shed
from meshlib.engine.events import RateLimited
from meshlib.engine.exchange import READ, REQUEST_ID, Admission, Lanes, admit_request
from meshlib.engine.filters import Filter, LocalReply
from meshlib.engine.request_limit import RateLimitConfig, limit_filter
from meshlib.engine.watch import watch
from meshlib.flags import ResponseFlag
from meshlib.grpc import secure
from meshlib.grpc.errors import BY_HTTP, status_code
from meshlib.grpc.metadata import CONTENT_TYPE, received
from meshlib.grpc.served import Metadata
from meshlib.model.fault import HttpFault
from meshlib.model.request import ServedHead
from meshlib.model.shedding import Shedding
from meshlib.policy.fault import Fault
from meshlib.security.spiffe import SpiffeIdError, sole_id

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

# (request streams, response streams) -> the handler's attribute, and what makes such a handler
KINDS: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
HEALTH = "/grpc.health.v1.Health/"
_NO_DEADLINE = 1e9  # seconds; a grpc.server tells "none" by the largest number it knows


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call is refused, in gRPC's words."""

    code: grpc.StatusCode
    details: str
    trailing: Metadata


class Inbound:
    """The server's end of the mesh for calls of any kind. `rate_limits`, `faults` and `shed` as those of
    `meshlib.http.server.MeshMiddleware`.
    """

    def __init__(
        self,
        mesh: Mesh,
        rate_limits: Sequence[RateLimitConfig],
        faults: Sequence[Fault | HttpFault] = (),
        shed: Sequence[Shedding | str] = (),
    ) -> None:
        self._mesh = mesh
        self._shed = Shed(shed) if shed else None
        shedders = () if self._shed is None else self._shed.filters
        injected = (mesh.runtime.faults.filter(fault, "calls served") for fault in faults)
        limits = (limit_filter(limit, lambda: mesh.runtime.filters) for limit in rate_limits)
        self._filters: tuple[Filter, ...] = (*injected, *limits, *shedders)

    def admit(self, method: str, context: Any) -> Admission:
        """Decide about a call when its handler is about to run. (Not earlier: a call may have waited for a thread until
        nobody waited for it any more.) Health checks take no token, get no fault and are not shed: the server must not
        look dead.
        """
        filters = () if method.startswith(HEALTH) else self._filters
        runtime = self._mesh.runtime
        remaining, now = context.time_remaining(), time.monotonic()
        rules = runtime.plan.lanes
        metadata = [CONTENT_TYPE, *received(context.invocation_metadata())]
        head = ServedHead("POST", "http", "", method, metadata, lambda: _address(context.peer()))
        admission = admit_request(
            head,
            now,
            filters,
            runtime.rng,
            timeout=None if remaining is None or remaining > _NO_DEADLINE else remaining,
            peer=_caller(context),
            propagation=runtime.propagation,
            lanes=Lanes(rules, _address(context.peer()), time.time()) if rules is not None else None,
            reads=READ if self._shed is None else self._shed.reads,
        )
        admission.watched_by(watch(runtime, head, now))
        return admission

    def refusal(self, reply: LocalReply, method: str, request_id: str) -> Refusal:
        """The answer to a call that is not served. Headers of the reply go as metadata."""
        if reply.flag is ResponseFlag.RL:
            self._mesh.runtime.emit(lambda: RateLimited(time.monotonic(), reply.name, method))
        if reply.flag is ResponseFlag.UO and self._shed is not None:
            self._shed.tell(self._mesh.runtime, reply, method)
        by_http = BY_HTTP.get(reply.status, grpc.StatusCode.UNKNOWN)
        code = by_http if reply.grpc_status is None else status_code(reply.grpc_status)
        headers = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in reply.headers)
        return Refusal(code, reply.body.decode("latin-1"), (*headers, (REQUEST_ID, request_id)))


def added(admission: Admission) -> Metadata:
    """What filters add to the response, as metadata."""
    if not admission.headers:
        return ()
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in admission.headers)


def _address(peer: str) -> str:
    """The IP address in gRPC's name of a peer, `ipv4:10.0.0.1:5001` or `ipv6:[::1]:5001`; empty for others."""
    kind, _, rest = peer.partition(":")
    return unquote(rest.rpartition(":")[0]).strip("[]") if kind in ("ipv4", "ipv6") else ""


def _caller(context: Any) -> str:
    """The SPIFFE ID of the caller: as our own TLS found it, else as grpcio's did."""
    ours = secure.peer(context)
    return str(ours.spiffe_id) if ours is not None else peer_of(context.auth_context())


def peer_of(auth_context: Mapping[str, Sequence[bytes]]) -> str:
    """The SPIFFE ID of a verified caller: its certificate's only URI SAN (SPIFFE X.509-SVID, section 2); else empty."""
    try:
        return str(sole_id(uri.decode("latin-1") for uri in auth_context.get("peer_uri") or ()))
    except SpiffeIdError:
        return ""
