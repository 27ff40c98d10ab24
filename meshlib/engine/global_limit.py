"""The global rate limit filter: what a rate limit service is asked, and what becomes of its answer
(`envoy.filters.http.ratelimit`).

Asking is I/O, so it is somebody else's (`RateLimitServices`): the filter makes the question, and decides by the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from meshlib.engine.commands import Question
from meshlib.engine.filters import LocalReply
from meshlib.engine.passing import Passed
from meshlib.engine.pauses import Consult
from meshlib.flags import ResponseFlag
from meshlib.model.global_rate_limit import GlobalRateLimit
from meshlib.model.grpc_service import GrpcService
from meshlib.model.header_mutation import MutationStep
from meshlib.model.request import RequestHead
from meshlib.policy.rate_limit_service import OVER_LIMIT, DescriptorStatus, ServiceAnswer, request
from meshlib.policy.rng import Rng, happens
from meshlib.routing.descriptors import Descriptors
from meshlib.routing.header_filter import compile_steps
from meshlib.routing.headers import Headers

_RESOURCE_EXHAUSTED = 8
_RATE_LIMITED = (b"x-envoy-ratelimited", b"true")
Count = Callable[[RequestHead, str], None]
"""Counts one more under a stat's name, of the cluster that a request goes to."""


class RateLimitServices(Protocol):
    """Whoever can ask rate limit services."""

    def question(self, service: GrpcService, data: bytes, timeout: float | None) -> Question:
        """Ask with the bytes of a `RateLimitRequest`, `timeout` seconds at most. The answer is a `ServiceAnswer`, or
        None where there is none.
        """

    def tell(self, service: GrpcService, data: bytes, timeout: float | None) -> None:
        """The same for nobody: whatever the answer is, it changes nothing. Does not block, and never raises."""


class Unreachable:
    """Stands for services that cannot be asked here at all."""

    def question(self, service: GrpcService, data: bytes, timeout: float | None) -> Unreachable:
        """A question that has no answer."""
        del service, data, timeout
        return self

    def tell(self, service: GrpcService, data: bytes, timeout: float | None) -> None:
        """Nobody hears it."""

    def ask(self) -> None:
        """No answer."""

    async def aask(self) -> None:
        """No answer."""


class GlobalLimitFilter:
    """One filter on one route. `now` makes the descriptors that a request is held against before it is sent, `after`
    those it counts for when it has ended; None where there are none.
    """

    def __init__(
        self,
        config: GlobalRateLimit,
        now: Descriptors | None,
        after: Descriptors | None,
        services: Callable[[], RateLimitServices],
        count: Count,
    ) -> None:
        self.config = config
        self._now = now
        self._after = after
        self._services = services
        self._count = count
        prefix = f"{config.stat_prefix}." if config.stat_prefix else ""
        self._stats = {name: f"ratelimit.{prefix}{name}" for name in _STATS}
        self._enabled = config.enabled.fraction
        self._internal = {"internal": True, "external": False}.get(config.request_type)
        self._mutate = compile_steps([MutationStep(append=option) for option in config.response_headers], "response")

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> Consult | Passed | None:
        """Ask, where the request has descriptors."""
        if self._enabled < 1.0 and not happens(self._enabled, rng):
            return None
        if self._internal is not None and (head.get("x-envoy-internal") == "true") is not self._internal:
            return None
        found = self._now(head) if self._now is not None else None
        ended = None if self._after is None else partial(self._tell, head)
        if not found:
            return None if ended is None else Passed(ended=ended)
        question = self._services().question(
            self.config.service, request(self.config.domain, found), self.config.timeout
        )
        return Consult(question, lambda answer, at: self._decided(head, rng, ended, answer), ended)

    def _tell(self, head: RequestHead) -> None:
        found = self._after(head) if self._after is not None else None
        if found:
            self._services().tell(self.config.service, request(self.config.domain, found), self.config.timeout)

    def _decided(
        self, head: RequestHead, rng: Rng, ended: Callable[[], None] | None, answer: ServiceAnswer | None
    ) -> LocalReply | Passed | None:
        verdict = self._without_service(head, rng) if answer is None else self._by(answer, head, rng)
        if ended is None:
            return verdict
        if isinstance(verdict, LocalReply):
            ended()  # what is refused has ended, too
            return verdict
        passed = verdict or Passed()
        return Passed(passed.request_headers, passed.response_headers, ended)

    def _without_service(self, head: RequestHead, rng: Rng) -> LocalReply | Passed | None:
        config = self.config
        self._count(head, self._stats["error"])
        share = config.failure_mode_deny_percent
        denies = config.failure_mode_deny if share is None else happens(share.fraction, rng)
        if denies:
            return LocalReply(config.status_on_error, [], b"", ResponseFlag.RLSE, config.domain)
        self._count(head, self._stats["failure_mode_allowed"])
        return None

    def _by(self, answer: ServiceAnswer, head: RequestHead, rng: Rng) -> LocalReply | Passed | None:
        over = answer.code == OVER_LIMIT
        self._count(head, self._stats["over_limit" if over else "ok"])
        headers = list(answer.response_headers)
        if over and self.config.x_envoy_ratelimited:
            headers = [pair for pair in headers if pair[0] != _RATE_LIMITED[0]]
            headers.append(_RATE_LIMITED)
        if self.config.x_ratelimit_headers:
            headers += x_ratelimit(answer.statuses)
        if over and happens(self.config.enforced.fraction, rng):
            return self._refused(headers, answer.raw_body, head)
        if headers or answer.request_headers:
            return Passed(answer.request_headers, headers)
        return None

    def _refused(self, headers: Headers, body: bytes, head: RequestHead) -> LocalReply:
        config = self.config
        if self._mutate is not None:
            headers = self._mutate(headers, head)
        grpc_status = _RESOURCE_EXHAUSTED if config.rate_limited_as_resource_exhausted else None
        return LocalReply(config.status, headers, body, ResponseFlag.RL, config.domain, grpc_status)


_STATS = ("ok", "error", "over_limit", "failure_mode_allowed")


def x_ratelimit(statuses: Sequence[DescriptorStatus]) -> Headers:
    """`x-ratelimit-*`, of draft version 03: the descriptor that is nearest to its limit, and the policies of all."""
    limited = [status for status in statuses if status.requests_per_unit is not None]
    if not limited:
        return []
    nearest = min(limited, key=lambda status: status.remaining)
    policies = "".join(_policy(status) for status in limited)
    return [
        (b"x-ratelimit-limit", f"{nearest.requests_per_unit}{policies}".encode("utf-8", "replace")),
        (b"x-ratelimit-remaining", b"%d" % nearest.remaining),
        (b"x-ratelimit-reset", b"%d" % nearest.reset),
    ]


def _policy(status: DescriptorStatus) -> str:
    if not status.window:
        return ""
    name = f';name="{status.name}"' if status.name else ""
    return f", {status.requests_per_unit};w={status.window}{name}"
