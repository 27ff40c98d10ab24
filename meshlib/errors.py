"""The errors of meshlib.

    MeshError
    ├── ConfigurationError           a file, bootstrap or argument cannot be used (says where and what would be valid)
    │   ├── ResourceError            (meshlib.model.report) one resource: type and name, path of the field, reason
    │   └── BootstrapError           (meshlib.sources.xds) the xDS bootstrap: source, path, reason
    ├── NotReadyError                no configuration arrived in time
    └── CallError                    a call failed; carries flag, route, cluster, endpoint, attempts
        ├── NoRouteError             NR  no virtual host or route matches, or the host is unknown and rejected
        ├── ClusterNotFoundError     NC  the route's cluster does not exist
        ├── NoHealthyUpstreamError   UH  every endpoint is unhealthy, or there is none
        ├── UpstreamOverflowError    UO  a circuit-breaker threshold or the pending queue is full
        │   └── CircuitOpenError     UO  the circuit breaker is open (also pybreaker.CircuitBreakerError)
        ├── UpstreamConnectError     UF  no connection to the endpoint
        ├── UpstreamResetError       UC  the connection broke before the response
        ├── UpstreamTimeoutError     UT  the route's timeout, a deadline or the caller's own timeout ran out
        ├── UpstreamProtocolError    UPE the response was not valid HTTP
        └── RateLimitedError         RL  a limit of code (not of configuration: that answers 429) refused the call

What an adapter raises is one of these *and* the host library's own class, so `except httpx.HTTPError` keeps working.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.flags import ResponseFlag


class MeshError(Exception):
    """Base of everything meshlib raises on purpose."""


class ConfigurationError(MeshError):
    """Configuration cannot be used; the message names what, where and what would be valid."""


class NotReadyError(MeshError):
    """No usable configuration arrived in time."""


@dataclass(frozen=True, slots=True)
class CallFailure:
    """Why a call failed, as a value: what the engine hands to the adapters.

    `reason` is a sentence for people; `route` is `virtual host/route`; `endpoint` the last one tried;
    `circuit_open` tells an open circuit breaker from a full threshold, both UO. `status` is the HTTP status a proxy
    would have answered with, where the configuration says which (`cluster_not_found_response_code`); else 0.
    """

    flag: ResponseFlag
    reason: str
    route: str = ""
    cluster: str = ""
    endpoint: str = ""
    attempts: int = 0
    circuit_open: bool = False
    status: int = 0

    @property
    def http_status(self) -> int:
        """The HTTP status a proxy answers such a failure with."""
        return self.status or _STATUS.get(self.flag, 503)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers a proxy answers with, beside those of any answer."""
        return (("x-envoy-overloaded", "true"),) if self.flag is ResponseFlag.UO else ()

    def __str__(self) -> str:
        parts = [f"{self.flag}: {self.reason}"]
        named = {"route": self.route, "cluster": self.cluster, "endpoint": self.endpoint}
        parts += [f"{name}={value}" for name, value in named.items() if value]
        if self.attempts:
            parts.append(f"attempts={self.attempts}")
        return ", ".join(parts)


class CallError(MeshError):
    """A call through the mesh failed; `failure` says why in Envoy's words."""

    failure: CallFailure

    def __init__(self, failure: CallFailure) -> None:
        super().__init__(failure)  # the value itself, so that the error survives pickling
        self.failure = failure

    @property
    def flag(self) -> ResponseFlag:
        """Envoy's response flag, for example `UH`."""
        return self.failure.flag

    @property
    def status(self) -> int:
        """The HTTP status a proxy answers such a failure with: for handlers that pass it on to their own callers."""
        return self.failure.http_status

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers a proxy answers such a failure with, beside those of any answer: for the same handlers."""
        return self.failure.headers

    def __str__(self) -> str:
        return str(self.failure)


class NoRouteError(CallError):
    """NR: nothing in the configuration matches the request."""


class ClusterNotFoundError(CallError):
    """NC: the route names a cluster that does not exist."""


class NoHealthyUpstreamError(CallError):
    """UH: no endpoint can take the request."""


class UpstreamOverflowError(CallError):
    """UO: a circuit-breaker threshold is reached."""


class CircuitOpenError(UpstreamOverflowError):
    """UO: the circuit breaker is open."""


class UpstreamConnectError(CallError):
    """UF: no connection to the endpoint."""


class UpstreamResetError(CallError):
    """UC or UR: the connection broke before the response was complete."""


class UpstreamTimeoutError(CallError):
    """UT: time ran out."""


class UpstreamProtocolError(CallError):
    """UPE: the upstream did not speak valid HTTP."""


class RateLimitedError(CallError):
    """RL: a limit set in code refused the call."""


_BY_FLAG: dict[ResponseFlag, type[CallError]] = {
    ResponseFlag.NR: NoRouteError,
    ResponseFlag.NFCF: NoRouteError,
    ResponseFlag.NC: ClusterNotFoundError,
    ResponseFlag.UH: NoHealthyUpstreamError,
    ResponseFlag.UO: UpstreamOverflowError,
    ResponseFlag.UF: UpstreamConnectError,
    ResponseFlag.UC: UpstreamResetError,
    ResponseFlag.UR: UpstreamResetError,
    ResponseFlag.UT: UpstreamTimeoutError,
    ResponseFlag.SI: UpstreamTimeoutError,
    ResponseFlag.UPE: UpstreamProtocolError,
    ResponseFlag.RL: RateLimitedError,
    ResponseFlag.RLSE: RateLimitedError,
}


_STATUS = {
    ResponseFlag.NR: 404,
    ResponseFlag.UT: 504,
    ResponseFlag.SI: 504,
    ResponseFlag.UPE: 502,
    ResponseFlag.RL: 429,
}


def error_type(failure: CallFailure) -> type[CallError]:
    """Our class for a failure; every adapter's own class inherits from it."""
    return CircuitOpenError if failure.circuit_open else _BY_FLAG.get(failure.flag, CallError)
