"""What a call flow asks its driver to do, and what it hears back.

A flow is a generator. It yields commands; the driver does them and sends the answer:

    command        the driver ...                                                        sends back
    Fetch          waits until the authority's configuration is there                    now
    Query          runs a question that needs I/O (a shared rate limit)                  (its answer, now)
    Start          runs one attempt on one endpoint up to response headers               an Outcome
    Discard        drops a response that will be retried                                 now
    Wait           sleeps                                                                now
    Launch         begins an attempt and does not wait for it                            now
    Listen         waits for one of the launched attempts to end, or until a moment      (its Start, an Outcome), or now
    Cancel         gives a launched attempt up; nothing is heard of it any more          now
    Commit         hands the response to the caller; later, when the body has ended      a BodyEnd
    Mirror         begins a copy of the request elsewhere, and does not wait for it      now
    Reply, Fail, PassThrough   terminal: nothing is sent back, the flow has ended

Times are monotonic seconds; the driver reads the clock, the flow never does.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.request import RequestHead
from meshlib.policy.idle import IdleLimit

if TYPE_CHECKING:
    from meshlib.balancing.base import Host
    from meshlib.engine.circuits import BreakerLike
    from meshlib.engine.cluster import ClusterPlan
    from meshlib.engine.decision import Forward
    from meshlib.model.route import RoutingPriority
    from meshlib.policy.breaker import Permit


class Question(Protocol):
    """Something only I/O can answer, for both kinds of driver."""

    def ask(self) -> Any:
        """Answer, blocking."""

    async def aask(self) -> Any:
        """Answer, on the running event loop."""


class Replayable(Protocol):
    """Whether a request can be sent again: a bool, or for a stream of requests what knows how much of it is kept."""

    def __bool__(self) -> bool:
        """Asked when a retry is due."""


@dataclass(slots=True)
class Fetch:
    """Wait for the configuration of `authority`, at most until `deadline`."""

    authority: str
    deadline: float


@dataclass(slots=True)
class Query:
    """Ask `question`."""

    question: Question


class Start:
    """Run attempt number `attempt` (from 1) of `head` on `host`.

    `deadline` (None: none) ends the attempt with `on_deadline`; `final_deadline` takes its place once the response is
    committed. `idle` (None: none) bounds the silence of the endpoint, before the response and within its body. `info`
    is the call's, still being filled. `permits` are what circuit breakers gave for it, each with its breaker.
    `priority` is the route's.
    """

    __slots__ = (
        "attempt",
        "cluster",
        "deadline",
        "final_deadline",
        "head",
        "host",
        "idle",
        "info",
        "on_deadline",
        "permits",
        "priority",
    )

    def __init__(
        self,
        attempt: int,
        cluster: ClusterPlan,
        host: Host,
        head: RequestHead,
        deadline: float | None,
        on_deadline: Failure,
        final_deadline: float | None,
        idle: IdleLimit | None = None,
        *,
        info: CallInfo | None = None,
        priority: RoutingPriority = "DEFAULT",
    ) -> None:
        self.attempt = attempt
        self.cluster = cluster
        self.host = host
        self.head = head
        self.deadline = deadline
        self.on_deadline = on_deadline
        self.final_deadline = final_deadline
        self.idle = idle
        self.info = info
        self.priority = priority
        self.permits: tuple[tuple[BreakerLike, Permit], ...] = ()


class Overlap:
    """What only calls that hedge yield: their attempts overlap."""

    __slots__ = ()


@dataclass(slots=True)
class Launch(Overlap):
    """Begin the attempt `start`; others go on meanwhile."""

    start: Start


@dataclass(slots=True)
class Listen(Overlap):
    """Wait until a launched attempt ends, at most until `until` (monotonic seconds; None: as long as it takes)."""

    until: float | None


@dataclass(slots=True)
class Cancel(Overlap):
    """Give up the launched attempt `start`, and drop its response if it has one by now."""

    start: Start


@dataclass(slots=True)
class Discard:
    """Drop the response of `outcome`; another attempt follows, `bodiless` ones without the request's body."""

    outcome: Outcome
    bodiless: bool = False


@dataclass(slots=True)
class Mirror:
    """Send a copy of the request, by `engine.call.mirror_flow`, while the call goes on: `head`, decided to go by
    `decision`, until `deadline` (monotonic seconds; None: the call has none). `traced` False: it has no span.

    The copy has the request's whole body. One that comes piece by piece is kept for it, up to `body_limit` bytes; of a
    longer one there is no copy, which `origin`, the call's own cluster, counts.
    """

    decision: Forward
    head: RequestHead
    deadline: float | None
    origin: ClusterPlan
    body_limit: int
    traced: bool = True

    def abandon(self) -> None:
        """There will be no copy: the body is too long, or broke off."""
        self.origin.stats["retry_or_shadow_abandoned"].add()

    def overflow(self) -> None:
        """There will be no copy: too many are under way."""
        self.decision.cluster.stats["upstream_rq_pending_overflow"].add()


@dataclass(slots=True)
class Wait:
    """Sleep for `seconds`."""

    seconds: float


class Commit:
    """`outcome`'s response is the call's. The flow stays alive until it is sent a `BodyEnd`.

    `headers` are the response headers after the route's mutations, None when there are none to make.
    """

    __slots__ = ("headers", "info", "outcome")

    def __init__(self, outcome: Outcome, info: CallInfo, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.outcome = outcome
        self.info = info
        self.headers = headers


class BodyEnd:
    """The body ended: whole (`failure` None), broken, or abandoned by the caller (LOCAL). `grpc_status` is the status
    in the trailers of a gRPC stream, whose outcome had to leave it open.
    """

    __slots__ = ("at", "failure", "grpc_status")

    def __init__(self, at: float, failure: Failure | None = None, grpc_status: int | None = None) -> None:
        self.at = at
        self.failure = failure
        self.grpc_status = grpc_status


@dataclass(slots=True)
class Reply:
    """A response the mesh makes itself: direct response, redirect, rate limit. `grpc_status` is a gRPC call's status
    where it is not what `status` means to gRPC.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    info: CallInfo
    grpc_status: int | None = None


@dataclass(slots=True)
class Fail:
    """The call failed; `outcome` is the last attempt's, when there was one."""

    failure: CallFailure
    outcome: Outcome | None = None


@dataclass(slots=True)
class PassThrough:
    """The host is not in the mesh and unknown hosts may pass: send the request as if there were no mesh."""

    head: RequestHead


@dataclass(slots=True)
class CallInfo:
    """What the mesh did with a call; on the response as `extensions["meshlib"]`.

    `flag` is empty when nothing went wrong (a retried success has none either). `why_not_retried` says what kept an
    attempt that a retry policy asks to retry from being retried: `not-replayable`, `retry-limit`, `deadline`, `budget`,
    `pushback`. `grpc_status` is a gRPC call's, None for any other. `internal_redirects` counts the redirects that the
    mesh has followed, which the rest is told after; `why_not_redirected` says why it followed no further: Envoy's
    `bad-location`, `unsafe-scheme`, `too-many-redirects`, `no-route`, `predicate`, or `not-replayable`.
    """

    virtual_host: str = ""
    route: str = ""
    cluster: str = ""
    endpoint: str = ""
    attempts: int = 0
    flag: ResponseFlag | None = None
    why_not_retried: str = ""
    grpc_status: int | None = None
    internal_redirects: int = 0
    why_not_redirected: str = ""


Command = Fetch | Query | Start | Overlap | Discard | Mirror | Wait | Commit | Reply | Fail | PassThrough
Terminal = Commit | Reply | Fail | PassThrough
Flow = Generator[Command, Any, None]


class Abandoned(BaseException):
    """Thrown into a flow whose caller went away at `at`: cancelled, interrupted, or failed in its own request body. No
    `Exception`, so that nothing in a flow takes it for an error of its own.
    """

    def __init__(self, at: float) -> None:
        super().__init__(at)
        self.at = at


def abandon(flow: Flow, at: float) -> None:
    """End a flow whose caller went away. It gives everything back, as on `close`, and tells of the call's end (DC)."""
    try:
        flow.throw(Abandoned(at))
    except (Abandoned, StopIteration):
        return
