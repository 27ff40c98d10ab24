"""The fault filter at run time, in the order of Envoy's: response rate limit, delay, abort, each drawn by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from meshlib.engine.ends import Admit, End
from meshlib.engine.faults import Faults
from meshlib.engine.filters import Filter, LocalReply, Verdict
from meshlib.engine.pauses import Delay
from meshlib.flags import ResponseFlag
from meshlib.model.durations import LONGEST
from meshlib.model.fault import HttpFault
from meshlib.model.matchers import FractionalPercent
from meshlib.model.request import RequestHead
from meshlib.policy.rng import Rng, happens
from meshlib.routing.matchers import HeaderPredicate
from meshlib.state.counter import Counter
from meshlib.telemetry.grpc_names import is_grpc

DELAY = "x-envoy-fault-delay-request"
ABORT = "x-envoy-fault-abort-request"
GRPC_ABORT = "x-envoy-fault-abort-grpc-request"
THROUGHPUT = "x-envoy-fault-throughput-response"
_GRPC_PERCENTAGE = "x-envoy-fault-abort-percentage"  # gRFC A33 calls it so
_CALLER = "x-envoy-downstream-service-cluster"
_NODE = "x-envoy-downstream-service-node"
_BODY = b"fault filter abort"
_NUMBER = re.compile(r"\s*\+?(\d{1,20})\s*", re.ASCII)
_UINT32, _UINT64 = 2**32 - 1, 2**64 - 1
_KIB = 1024
_ROUNDING = 1e-6  # 0.029 seconds are 29 ms
_OK = 200


class FaultFilter:
    """`envoy.filters.http.fault` on one route, or on a server. `name` is for whoever is told; `told` says when that was
    last: (how many faults there had been, the time).
    """

    __slots__ = ("__weakref__", "_faults", "_headers", "config", "count", "name", "told")

    def __init__(self, config: HttpFault, faults: Faults, name: str) -> None:
        self.config = config
        self.name = name
        self.count = Counter()
        self.told: tuple[int, float] | None = None
        self._faults = faults
        self._headers = tuple(HeaderPredicate(matcher) for matcher in config.headers)

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> Verdict:
        """Inject what is to be injected."""
        faults = self._faults
        if not faults.enabled or not self._concerns(head):
            return None
        return _Injection(self, faults, head, rng).begin(now)

    def _concerns(self, head: RequestHead) -> bool:
        nodes = self.config.downstream_nodes
        if nodes and _first(head, _NODE) not in nodes:
            return False
        return all(fits(head) for fits in self._headers)


class _Injection:
    """The faults of one request. It is a token among the active ones from the first fault on."""

    __slots__ = ("_active", "_caller", "_config", "_faults", "_filter", "_head", "_limit", "_rng")

    def __init__(self, source: FaultFilter, faults: Faults, head: RequestHead, rng: Rng) -> None:
        self._filter = source
        self._config = source.config
        self._faults = faults
        self._head = head
        self._rng = rng
        self._caller = _first(head, _CALLER)
        self._active = False
        self._limit: int | None = None

    def begin(self, now: float) -> Verdict:
        self._limit = self._throughput(now)
        seconds = self._delay()
        if seconds and self._activate():
            self._injected("delay", "delays_injected", now)
            return Delay(seconds, self._waited, self.release, injected=True)
        return self._abort(now) or self._lasting()

    def release(self, _: End | None = None) -> None:
        """Not active any more."""
        self._faults.active.pop(self, None)

    def _waited(self, _: Any, now: float) -> Verdict:
        """The delay is over. Where there is a rate limit for responses the fault lasts as long as the request, whether
        it was drawn or not, as in Envoy.
        """
        reply = self._abort(now)
        if reply is None and self._config.response_rate_limit is not None and not is_grpc(self._head):
            return self._lasting()
        self.release()
        return reply

    def _lasting(self) -> Admit | None:
        return Admit(self.release, response_limit=self._limit) if self._active else None

    def _activate(self) -> bool:
        """Whether one more fault may be under way; a request counts once."""
        if self._active:
            return True
        config, faults = self._config, self._faults
        limit = _UINT64 if config.max_active_faults is None else config.max_active_faults
        if len(faults.active) >= faults.integer(config.max_active_faults_runtime, limit):
            faults.count("faults_overflow")
            return False
        self._active = True
        faults.active[self] = None
        return True

    # ------------------------------------------------------------------ the faults

    def _throughput(self, now: float) -> int | None:
        """Bytes a second; None: no limit. gRPC knows no such fault (gRFC A33), and its calls get none."""
        limit, config = self._config.response_rate_limit, self._config
        if limit is None or is_grpc(self._head):
            return None
        header = THROUGHPUT if limit.limit_kbps is None else ""
        if not self._drawn(config.response_rate_limit_percent_runtime, limit.percentage, header):
            return None
        kbps = limit.limit_kbps or self._said(THROUGHPUT)
        if not kbps or not self._activate():
            return None
        self._injected("response rate limit", "response_rl_injected", now)
        return kbps * _KIB

    def _delay(self) -> float:
        """Seconds; 0: no delay."""
        delay, config = self._config.delay, self._config
        if delay is None:
            return 0.0
        header = DELAY if delay.seconds is None else ""
        key = self._key("delay.fixed_delay_percent") or config.delay_percent_runtime
        if not self._drawn(key, delay.percentage, header):
            return 0.0
        given = self._said(DELAY) if delay.seconds is None else int(delay.seconds * 1000 + _ROUNDING)
        if given is None:
            return 0.0
        milliseconds = self._faults.integer(config.delay_duration_runtime, given)
        if own := self._key("delay.fixed_duration_ms"):
            milliseconds = self._faults.integer(own, milliseconds)
        return min(milliseconds / 1000, LONGEST)

    def _abort(self, now: float) -> LocalReply | None:
        abort, config = self._config.abort, self._config
        if abort is None:
            return None
        key = self._key("abort.abort_percent") or config.abort_percent_runtime
        if not self._drawn(key, abort.percentage, ABORT if abort.by_header else ""):
            return None
        status, grpc_status = self._statuses(abort.http_status, abort.grpc_status)
        if status is None or not self._activate():
            return None
        self._injected("abort", "aborts_injected", now)
        self.release()
        return LocalReply(status, [], _BODY, ResponseFlag.FI, "fault", grpc_status)

    def _statuses(self, http: int | None, grpc: int | None) -> tuple[int | None, int | None]:
        """The status to answer with, and gRPC's: the HTTP status goes before, and beside gRPC's it is 200."""
        if http is None and grpc is None:
            http, grpc = self._said(ABORT), self._said(GRPC_ABORT)
            if http is not None and not 200 <= http < 600:
                http = None
        config = self._config
        if http is not None:
            return self._faults.integer(self._key("abort.http_status") or config.abort_http_status_runtime, http), None
        if grpc is None:
            return None, None
        return _OK, self._faults.integer(self._key("abort.grpc_status") or config.abort_grpc_status_runtime, grpc)

    # ------------------------------------------------------------------ what decides

    def _drawn(self, key: str, percentage: FractionalPercent, header: str) -> bool:
        """Draw; where the request has a word, it can only make it less."""
        numerator = percentage.numerator
        if header:
            said = self._said(f"{header}-percentage", _UINT32)
            if said is None and header == ABORT and is_grpc(self._head):
                said = self._said(_GRPC_PERCENTAGE, _UINT32)
            numerator = numerator if said is None else min(said, numerator)
        return happens(self._faults.fraction(key, numerator, percentage.denominator), self._rng)

    def _key(self, name: str) -> str:
        """The runtime key for requests of this caller; empty where the request does not say whose it is."""
        return "" if self._caller is None else f"fault.http.{self._caller}.{name}"

    def _said(self, header: str, most: int = _UINT64) -> int | None:
        """The number in a request header, of several the first."""
        found = _NUMBER.fullmatch(_first(self._head, header) or "")
        number = int(found[1]) if found else None
        return None if number is None or number > most else number

    def _injected(self, kind: str, stat: str, now: float) -> None:
        self._faults.count(stat, "" if self._config.disable_downstream_cluster_stats else self._caller or "")
        self._faults.tell(self._filter, kind, self._head, now)


def _first(head: RequestHead, name: str) -> str | None:
    return next(iter(head.get_all(name)), None)


def for_clusters(
    filters: tuple[Filter, ...], cluster: str, cluster_by: Callable[[RequestHead], str] | None
) -> tuple[Filter, ...]:
    """The filters of a route to `cluster`, or to where `cluster_by` finds: faults for other clusters are left out."""
    found: list[Filter] = []
    for each in filters:
        wanted = each.config.upstream_cluster if isinstance(each, FaultFilter) else ""
        if not wanted or wanted == cluster:
            found.append(each)
        elif cluster_by is not None:
            found.append(_OfCluster(each, wanted, cluster_by))
    return tuple(found)


class _OfCluster:
    """A fault for one cluster on a route whose requests name theirs."""

    __slots__ = ("_cluster_by", "_filter", "_wanted", "config")

    def __init__(self, source: Filter, wanted: str, cluster_by: Callable[[RequestHead], str]) -> None:
        self.config = source.config
        self._filter = source
        self._wanted = wanted
        self._cluster_by = cluster_by

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> Verdict:
        """Inject, if the request goes there."""
        return self._filter.on_request(head, now, rng) if self._cluster_by(head) == self._wanted else None
