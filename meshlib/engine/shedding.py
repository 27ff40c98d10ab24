"""Load shedding at run time: filters that refuse, and that hear the end of what they let pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from meshlib.engine.ends import Admit, End
from meshlib.engine.filters import LocalReply
from meshlib.engine.pauses import Consult, Pause
from meshlib.flags import ResponseFlag
from meshlib.model.request import RequestHead
from meshlib.model.shedding import AdaptiveConcurrency, AdmissionControl, Bulkhead, QueueDeadline, Shedding
from meshlib.policy.admission import AdmissionController
from meshlib.policy.bulkhead import Compartments, Place, Queue
from meshlib.policy.codel import CoDel
from meshlib.policy.concurrency import GradientController
from meshlib.policy.priorities import Criticality, below
from meshlib.policy.rng import Rng
from meshlib.state.counter import Counter

if TYPE_CHECKING:
    from meshlib.engine.commands import Question
    from meshlib.engine.filters import Filter

OVERLOADED = (b"x-envoy-overloaded", b"true")
Wait = Callable[[Place, float], "Question"]


class AdaptiveConcurrencyFilter:
    """`envoy.filters.http.adaptive_concurrency`. What is given up by its caller takes no part in the measurement."""

    def __init__(self, config: AdaptiveConcurrency, refusal: LocalReply) -> None:
        self.config = config
        self.controller = GradientController(config)
        self._refusal = refusal
        self._criticality = Criticality(config.priorities) if config.priorities is not None else None

    @property
    def reads(self) -> tuple[str, ...]:
        """The headers it looks at, in lower case."""
        return _headers(self._criticality)

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> LocalReply | Admit:
        """Count it in, or refuse it."""
        share = 1.0 if self._criticality is None else self._criticality.share(head)
        if not self.controller.forwards(now, rng, share):
            return self._refusal
        return Admit(partial(self._ended, now))

    def _ended(self, began: float, end: End) -> None:
        if end.whole:
            self.controller.sample(began, end.at)
        else:
            self.controller.cancel()

    def stats(self) -> dict[str, float]:
        """Under Envoy's names (`adaptive_concurrency.gradient_controller.*`)."""
        found = self.controller
        return {
            "rq_blocked": found.blocked.value,
            "concurrency_limit": found.limit,
            "gradient": found.gradient,
            "min_rtt_calculation_active": int(found.measuring),
            "min_rtt_msecs": found.min_rtt * 1000.0,
            "sample_rtt_msecs": found.sample_rtt * 1000.0,
            "rq_active": found.in_flight,
        }


class AdmissionControlFilter:
    """`envoy.filters.http.admission_control`."""

    reads: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: AdmissionControl, refusal: LocalReply) -> None:
        self.config = config
        self.controller = AdmissionController(config)
        self._refusal = refusal
        self._admit = Admit(self._ended)

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> LocalReply | Admit:
        """Let it pass, or draw that it is refused."""
        return self._refusal if self.controller.rejects(now, rng) else self._admit

    def _ended(self, end: End) -> None:
        self.controller.record(end.status, end.grpc_status, end.at)

    def stats(self) -> dict[str, float]:
        """Under Envoy's names (`admission_control.*`)."""
        found = self.controller
        return {
            "rq_rejected": found.rejected.value,
            "rq_success": found.succeeded.value,
            "rq_failure": found.failed.value,
        }


class BulkheadFilter:
    """A fixed number of requests at a time, by key."""

    def __init__(self, config: Bulkhead, refusal: LocalReply) -> None:
        self.config = config
        self.compartments = Compartments(config.max_concurrent)
        self.blocked = Counter()
        self._refusal = refusal
        self._prefix = "" if config.path == "/" else config.path
        self._header = config.by.partition(":")[2].lower()
        self._by_caller = config.by == "caller"
        self._criticality = Criticality(config.priorities) if config.priorities is not None else None
        self._admit = Admit(self._ended)

    @property
    def reads(self) -> tuple[str, ...]:
        """The headers it looks at, in lower case."""
        return (*_headers(self._criticality), *([self._header] if self._header else []))

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> LocalReply | Admit | None:
        """Take a place, or refuse."""
        if self._prefix and not below(head.path_only, self._prefix):
            return None
        share = 1.0 if self._criticality is None else self._criticality.share(head)
        key = self._key(head)
        if not self.compartments.enter(key, share):
            self.blocked.add()
            return self._refusal
        return Admit(partial(self._left, key)) if key else self._admit

    def _key(self, head: RequestHead) -> str:
        if self._by_caller:
            return head.peer
        return head.get(self._header) or "" if self._header else ""

    def _left(self, key: str, end: End) -> None:
        self.compartments.leave(key)

    def _ended(self, end: End) -> None:
        self.compartments.leave("")

    def stats(self) -> dict[str, float]:
        """How many were refused, and are inside where all are counted as one."""
        return {"rq_blocked": self.blocked.value, "rq_active": self.compartments.in_flight()}


class WaitingBulkheadFilter:
    """The same with a queue. `wait` makes the question that a request in the queue waits for."""

    def __init__(self, config: Bulkhead, refusal: LocalReply, wait: Wait) -> None:
        self.config = config
        self.queue = Queue(config.max_concurrent, config.max_waiting, CoDel(config.target, config.interval))
        self.blocked = Counter()
        self._refusal = refusal
        self._wait = wait
        self._prefix = "" if config.path == "/" else config.path
        self._criticality = Criticality(config.priorities) if config.priorities is not None else None
        self._admit = Admit(self._ended)

    @property
    def reads(self) -> tuple[str, ...]:
        """The headers it looks at, in lower case."""
        return _headers(self._criticality)

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> LocalReply | Pause | Admit | None:
        """Take a place, or wait for one, or refuse."""
        if self._prefix and not below(head.path_only, self._prefix):
            return None
        place = self.queue.enter(now, 1.0 if self._criticality is None else self._criticality.share(head))
        if place is True:
            return self._admit
        if isinstance(place, Place):
            question = self._wait(place, self.config.max_wait)
            return Consult(question, partial(self._waited, place), partial(self._gave_up, place))
        return self._refused()

    def _waited(self, place: Place, answer: object, now: float) -> LocalReply | Admit:
        return self._admit if self.queue.leave(place) else self._refused()

    def _gave_up(self, place: Place) -> None:
        if self.queue.leave(place):
            self.queue.exit()

    def _refused(self) -> LocalReply:
        self.blocked.add()
        return self._refusal

    def _ended(self, end: End) -> None:
        self.queue.exit(end.at)

    def stats(self) -> dict[str, float]:
        """How many were refused, are inside, and wait."""
        return {
            "rq_blocked": self.blocked.value,
            "rq_active": self.queue.in_flight,
            "rq_pending": self.queue.waiting,
        }


class QueueDeadlineFilter:
    """Refuses what waited too long before it came here. `wall` is Unix time in seconds."""

    def __init__(self, config: QueueDeadline, refusal: LocalReply, wall: Callable[[], float]) -> None:
        self.config = config
        self.blocked = Counter()
        self._refusal = refusal
        self._header = config.header.lower()
        self._codel = CoDel(config.target, config.interval)
        self._wall = wall

    @property
    def reads(self) -> tuple[str, ...]:
        """The headers it looks at, in lower case."""
        return (self._header,)

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> LocalReply | None:
        """Look at how long it waited."""
        told = head.get(self._header)
        began = None if told is None else unix_seconds(told)
        if began is None:
            return None
        waited = self._wall() - began
        if waited < 0.0 or not (self._codel.drops(waited, now) or waited > self.config.max_wait):
            return None
        self.blocked.add()
        return self._refusal

    def stats(self) -> dict[str, float]:
        """How many were refused."""
        return {"rq_blocked": self.blocked.value}


Shedder = (
    AdaptiveConcurrencyFilter | AdmissionControlFilter | BulkheadFilter | WaitingBulkheadFilter | QueueDeadlineFilter
)


def _headers(criticality: Criticality | None) -> tuple[str, ...]:
    return (criticality.header,) if criticality is not None and criticality.header else ()


def unix_seconds(text: str) -> float | None:
    """A moment as proxies write it into `x-request-start`: seconds, milliseconds or microseconds since 1970, with `t=`
    before it or not. None for anything else.
    """
    text = text.strip().removeprefix("t=")
    if not text.replace(".", "", 1).isdecimal() or not text.isascii():
        return None
    number = float(text)
    for scale in (1.0, 1e3, 1e6, 1e9):
        if 1e9 <= number / scale < 1e10:  # from 2001 to 2286
            return number / scale
    return None


def server_shedder(config: Shedding, *, wait: Wait, wall: Callable[[], float]) -> Shedder | None:
    """The filter of a server: a refusal says that the server is overloaded, so that nobody tries again at once. None
    for one that is switched off.
    """
    headers = [OVERLOADED]
    if config.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(config.retry_after))))
    match config:
        case AdaptiveConcurrency():
            reply = _refusal(config.status, "adaptive_concurrency", b"reached concurrency limit", headers)
            return AdaptiveConcurrencyFilter(config, reply) if config.enabled else None
        case AdmissionControl():
            reply = _refusal(config.status, "admission_control", b"denied by admission control", headers)
            return AdmissionControlFilter(config, reply) if config.enabled else None
        case Bulkhead():
            reply = _refusal(config.status, config.name, b"bulkhead full", headers)
            return WaitingBulkheadFilter(config, reply, wait) if config.max_waiting else BulkheadFilter(config, reply)
        case QueueDeadline():
            reply = _refusal(config.status, "queue_deadline", b"waited too long", headers)
            return QueueDeadlineFilter(config, reply, wall)


def adaptive_concurrency(config: AdaptiveConcurrency) -> Filter | None:
    """The filter of a route, which answers as Envoy does."""
    reply = _refusal(config.status, "adaptive_concurrency", b"reached concurrency limit", [])
    return AdaptiveConcurrencyFilter(config, reply) if config.enabled else None


def admission_control(config: AdmissionControl) -> Filter | None:
    """The filter of a route, which answers as Envoy does."""
    return (
        AdmissionControlFilter(config, _refusal(config.status, "admission_control", b"", []))
        if config.enabled
        else None
    )


BUILDERS: Mapping[type, Callable[..., Filter | None]] = {
    AdaptiveConcurrency: adaptive_concurrency,
    AdmissionControl: admission_control,
}


def _refusal(status: int, name: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> LocalReply:
    """One for all refusals: nobody changes it."""
    return LocalReply(status, headers, body, ResponseFlag.UO, name)
