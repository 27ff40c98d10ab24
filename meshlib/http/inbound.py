"""What the ASGI and the WSGI middleware share: the server's end of the mesh, without either protocol."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from meshlib.drivers.inbound import asettle, settle
from meshlib.drivers.shedding import HEALTH_PATHS, Shed
from meshlib.engine.events import RateLimited
from meshlib.engine.exchange import READ, REQUEST_ID, Admission, Lanes, admit_request
from meshlib.engine.filters import Filter, LocalReply
from meshlib.engine.request_limit import RateLimitConfig, limit_filter
from meshlib.engine.watch import watch
from meshlib.flags import ResponseFlag
from meshlib.http.cors import make_cors
from meshlib.http.drain import Drain
from meshlib.http.watched import makes_server_spans
from meshlib.model.cors import CorsPolicy
from meshlib.model.fault import HttpFault
from meshlib.model.request import RequestHead
from meshlib.model.shedding import Shedding
from meshlib.policy.fault import Fault

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["REQUEST_ID", "Inbound"]

PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")


class Inbound:
    """What happens to requests of one application before it sees them.

    `rate_limits`: local limits in order, as text (`"100/minute"`, see `local_limit`), as Envoy's filter
    (`LocalRateLimit`) or as one of ours (`RequestLimit`); or such as a rate limit service decides (`GlobalRateLimit`).
    `faults`: what to inject before the limits, in order: `Fault`, or Envoy's filter (`HttpFault`).
    `shed`: load shedding in order, as text (`"adaptive"`, `"bulkhead 100"`, see `meshlib.model.shedding`) or as
    policies; asked after the limits. Requests to `health_paths` are never shed.
    `drain_seconds`: how long to go on serving after SIGTERM (`meshlib.http.drain`; default 0, no delay); or `drain`, a
    `Drain` of the application's own, to ask whether it is draining and to hang hooks on.
    `readiness_path`: a path answered here, 200 or 503 while draining; None leaves readiness to the application.
    `cors`: which pages of other origins may call, as a policy for all requests, or True for what the mesh's routes say
    of the request's host and path.
    """

    __slots__ = (
        "_cors",
        "_drain_tried",
        "_filters",
        "_health_paths",
        "_limits",
        "_makes_spans",
        "_readiness_path",
        "app",
        "drain",
        "mesh",
        "shed",
    )

    def __init__(
        self,
        mesh: Mesh,
        *,
        rate_limits: Sequence[RateLimitConfig] = (),
        faults: Sequence[Fault | HttpFault] = (),
        shed: Sequence[Shedding | str] = (),
        health_paths: Sequence[str] = HEALTH_PATHS,
        drain_seconds: float = 0.0,
        drain: Drain | None = None,
        readiness_path: str | None = None,
        cors: CorsPolicy | bool = False,
    ) -> None:
        self.mesh = mesh
        self._cors = make_cors(mesh, cors)
        self.drain = drain or Drain(drain_seconds)
        self._drain_tried = False
        injected = (mesh.runtime.faults.filter(fault, "requests served") for fault in faults)
        limits = (limit_filter(limit, lambda: mesh.runtime.filters) for limit in rate_limits)
        self._limits: tuple[Filter, ...] = (*injected, *limits)
        self.shed = Shed(shed) if shed else None
        self._filters = self._limits if self.shed is None else (*self._limits, *self.shed.filters)
        self._health_paths = frozenset(health_paths)
        self._readiness_path = readiness_path
        self._makes_spans: bool | None = None
        self.app: object = None
        """The application behind, where there is one object for it."""

    def readiness(self, path: str) -> LocalReply | None:
        """The answer to a readiness probe, None for any other path. The first request installs the drain: whoever
        serves in the main thread has put its own signal handlers in place by then.
        """
        if not self._drain_tried:
            self.install_drain()
        if self._readiness_path is None or path != self._readiness_path:
            return None
        draining = self.drain.draining
        return LocalReply(503 if draining else 200, [], b"draining" if draining else b"ready", ResponseFlag.LR, "ready")

    def admit(self, head: RequestHead, peer: str = "", source_ip: str = "") -> Admission:
        """Whether a request reaches the application, and the context to serve it in; but where there is a `pause` that
        is known only after `settle` or `asettle`. `peer` is the caller's identity
        as the transport has verified it, `source_ip` the address it comes from.
        """
        runtime, now, filters, reads = self.mesh.runtime, time.monotonic(), self._filters, READ
        if self.shed is not None:
            reads, path = self.shed.reads, head.path
            if path in self._health_paths or ("?" in path and head.path_only in self._health_paths):
                filters = self._limits
        rules = runtime.plan.lanes
        admission = admit_request(
            head,
            now,
            filters,
            runtime.rng,
            peer=peer,
            propagation=runtime.propagation,
            lanes=Lanes(rules, source_ip, time.time()) if rules is not None else None,
            reads=reads,
        )
        admission.watched_by(watch(runtime, head, now, spans=not self._instrumented()))
        if admission.pause is None:
            self._decided(admission, head)
        else:
            admission.decided = partial(self._decided, admission, head)
        return admission

    def settle(self, admission: Admission) -> None:
        """Make the pauses that filters ask for, blocking, until it is known whether the request is served."""
        settle(admission)

    async def asettle(self, admission: Admission) -> None:
        """The same on the running event loop."""
        await asettle(admission)

    def _decided(self, admission: Admission, head: RequestHead) -> None:
        """It is known whether the request is served."""
        if self._cors is not None and admission.reply is None:
            self._cors(head, admission)
        reply = admission.reply
        if reply is not None and reply.flag is ResponseFlag.RL:
            self.mesh.runtime.emit(lambda: RateLimited(time.monotonic(), reply.name, head.path_only))
        if reply is not None and self.shed is not None and reply.flag is ResponseFlag.UO:
            self.shed.tell(self.mesh.runtime, reply, head.path_only)
        if reply is not None and admission.watch is not None:
            admission.watch.ended(time.monotonic(), reply.status, flag=reply.flag)

    def _instrumented(self) -> bool:
        """Whether the application makes server spans itself; asked once, of its first request."""
        if self.mesh.runtime.tracing is None:
            return False
        if self._makes_spans is None:
            self._makes_spans = makes_server_spans(self.app)
        return self._makes_spans

    def install_drain(self) -> None:
        """Put the drain before the server's own handler of SIGTERM, if that can be done here."""
        self._drain_tried = True
        self.drain.install()

    def shutdown(self) -> None:
        """The application has ended: the mesh ends after it."""
        self.drain.uninstall()
        self.mesh.close()
