"""Between a gRPC call and the engine: the parts that every kind of call shares."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from meshlib.context import current
from meshlib.engine.call import call_flow
from meshlib.engine.commands import BodyEnd, Commit, Flow, Replayable, Start
from meshlib.grpc.metadata import Metadata, head_of, metadata_of
from meshlib.grpc.outcome import AttemptError
from meshlib.grpc.subchannels import Settings
from meshlib.model.outcome import GRPC_STATUS_PENDING, Failure, Outcome

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

_AT_ONCE = 0.001  # seconds
_SLACK = 0.01  # grpcio counts in milliseconds of another clock


class Core(Protocol):
    """The mesh channel a call belongs to."""

    mesh: Mesh
    authority: str
    channel_id: str
    settings: Settings
    compression: Any


class Asked(NamedTuple):
    """How a call was asked for: what every multi-callable takes beside the request."""

    timeout: float | None = None
    metadata: Any = None
    credentials: Any = None
    wait_for_ready: bool | None = None
    compression: Any = None


class Exchange:
    """One call on its way through the mesh. `deadline` is what caller and context ask for, monotonic seconds."""

    __slots__ = ("asked", "began", "binary", "core", "deadline", "flow", "head", "limit", "on_limit")
    responses: ClassVar[bool] = False
    """Whether the call has a stream of responses."""

    def __init__(self, core: Core, method: str, asked: Asked, replayable: Replayable = True) -> None:
        mesh = core.mesh
        mesh.ensure_started()
        now = time.monotonic()
        context = current.get()
        deadline = context.deadline
        if asked.timeout is not None and (deadline is None or now + asked.timeout < deadline):
            deadline = now + asked.timeout
        streams = replayable is not True  # what keeps the requests of a stream
        head, self.binary = head_of(
            core.authority, method, asked.metadata, context, streams, self.responses, core.channel_id
        )
        self.began = now
        self.core = core
        self.asked = asked
        self.head = head
        self.deadline = deadline
        self.limit: float | None = None
        self.on_limit = Failure.TIMEOUT
        self.flow: Flow = call_flow(mesh.runtime, head, now, deadline=deadline, replayable=replayable)

    def options(self, start: Start, streams: bool = False) -> dict[str, Any]:
        """The keyword arguments of one attempt on a sub-channel. `streams`: the response is a stream, so that only the
        call's final deadline ends it; the attempt's own ends with its first message.
        """
        timeout, metadata = self.particulars(start, streams)
        asked = self.asked
        compression = asked.compression
        return {
            "timeout": timeout,
            "metadata": metadata,
            "credentials": asked.credentials,
            "wait_for_ready": asked.wait_for_ready,
            "compression": self.core.compression if compression is None else compression,
        }

    def particulars(self, start: Start, streams: bool = False) -> tuple[float | None, Metadata | None]:
        """The timeout and the metadata of one attempt."""
        limit, self.on_limit = (start.final_deadline, Failure.TIMEOUT) if streams else _limit(start)
        self.limit = limit
        metadata = metadata_of(start.head.headers, self.binary)
        if start.attempt > 1:
            metadata = (*metadata, ("grpc-previous-rpc-attempts", str(start.attempt - 1)))
        return None if limit is None else self._seconds_until(limit), metadata or None

    def _seconds_until(self, limit: float) -> float:
        """The time left, which for an attempt begun at once is that of the last call: `grpc-timeout` counts in
        milliseconds, and HPACK makes one byte of a header it has just seen.
        """
        now = time.monotonic()
        return max(0.0, limit - (self.began if now - self.began < _AT_ONCE else now))

    def out_of_time(self) -> Failure | None:
        """What running out of time means now; None while there is time left, so that it was the server who said so."""
        limit = self.limit
        return None if limit is None or time.monotonic() < limit - _SLACK else self.on_limit

    def finish(self, failure: Failure | None = None, grpc_status: int | None = None) -> None:
        """The response has ended: the flow settles its accounts."""
        try:
            self.flow.send(BodyEnd(time.monotonic(), failure, grpc_status))
        except StopIteration:
            return

    def finish_single(self, outcome: Outcome) -> None:
        """The same for a response of one message, or the error in its place (`outcome.single`)."""
        error = outcome.error
        pending = outcome.grpc_status == GRPC_STATUS_PENDING
        self.finish(None, error.code if pending and isinstance(error, AttemptError) else None)

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline, None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


def _limit(start: Start) -> tuple[float | None, Failure]:
    """When an attempt whose response is one message ends at the latest, and as what: silence is all it hears until
    then, so the idle limit is a deadline like the others.
    """
    idle = start.idle
    if idle is not None:
        at = time.monotonic() + idle.seconds
        if start.deadline is None or at < start.deadline:
            return at, idle.failure
    return start.deadline, start.on_deadline


def initial_metadata(commit: Commit, received: Any) -> Any:
    """A response's initial metadata, with the route's mutations where there are any."""
    if commit.headers is None:
        return received
    return tuple(
        (name.decode("latin-1").lower(), value if name.endswith(b"-bin") else value.decode("latin-1"))
        for name, value in commit.headers
    )


def unusable(error: Exception) -> Outcome:
    """The outcome of an attempt whose connection must not be made: the cluster's TLS cannot be honoured."""
    return Outcome(failure=Failure.CONNECT, request_sent=False, error=error)
