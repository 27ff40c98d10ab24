"""Checks by a request over HTTP/1.1, with the wire that calls use."""

from __future__ import annotations

from meshlib.errors import ConfigurationError
from meshlib.health.probe import Secure, Target, network_failure
from meshlib.http.wire.aio_pool import AsyncPool
from meshlib.http.wire.types import Address, PoolLimits, WireError, WireRequest
from meshlib.identity.upstream import Secured
from meshlib.model.health import HttpHealthCheck, StatusRange
from meshlib.model.request import RequestHead
from meshlib.policy.health import PASSED, FailureKind, Finding, contains
from meshlib.routing.headers import compile_mutations
from meshlib.routing.strings import compile_string

USER_AGENT = b"meshlib/HC"
_IMMEDIATE = b"x-envoy-immediate-health-check-fail"
_DEGRADED = b"x-envoy-degraded"
_SERVICE = b"x-envoy-upstream-healthchecked-cluster"
_LIMITS = PoolLimits(max_connections=1, idle_timeout=None)
_Headers = list[tuple[bytes, bytes]]


class HttpProbe:
    """Of one endpoint. Its connection is kept for the next check if `reuse`, and while its TLS is good."""

    def __init__(self, check: HttpHealthCheck, target: Target, secure: Secure, reuse: bool) -> None:
        self._check = check
        self._target = target
        self._secure = secure
        self._reuse = reuse
        self._request = request_of(check, target)
        self._accepts = compile_string(check.service_name_matcher) if check.service_name_matcher else None
        self._pool: AsyncPool | None = None
        self._secured: Secured | None = None

    async def check(self) -> Finding:
        """Send the request, and judge all of the response."""
        try:
            pool = await self._open()
            response = await pool.send(self._request)
            limit, body = self._check.response_buffer_size, b""
            async for data in response:
                if self._check.receive and (not limit or len(body) < limit):
                    body += data
        except (WireError, ConfigurationError) as error:
            return network_failure(error)
        finally:
            if not self._reuse:
                await self.aclose()
        headers = [(name.lower(), value) for name, value in response.headers]
        return self._judge(response.status, headers, body[:limit] if limit else body)

    async def aclose(self) -> None:
        """Let go of the connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    async def _open(self) -> AsyncPool:
        """The pool, in the newest TLS."""
        if self._pool is not None and self._secured is not None and not self._secured.stale:
            return self._pool
        await self.aclose()
        target = self._target
        secured = self._secured = target.secured(self._secure)
        addresses = tuple(Address(where.host, where.port, where.path) for where in target.dial)
        name = target.server_name(secured)
        self._pool = AsyncPool(addresses[0], ssl_context=secured.context, server_hostname=name, limits=_LIMITS)
        self._pool.dial = addresses
        return self._pool

    def _judge(self, status: int, headers: _Headers, body: bytes) -> Finding:
        """In Envoy's order: the body, the status, the service's name."""
        check, names = self._check, {name for name, _ in headers}
        excluded = _IMMEDIATE in names
        if not contains(check.receive, body):
            return Finding(FailureKind.ACTIVE, f"status {status}, and not the body that is expected", excluded=excluded)
        if not _within(status, check.expected_statuses):
            retriable = _within(status, check.retriable_statuses)
            return Finding(FailureKind.ACTIVE, f"status {status}", retriable=retriable, excluded=excluded)
        degraded = _DEGRADED in names
        if self._accepts is None:
            return Finding(degraded=degraded) if degraded else PASSED
        service = next((value.decode("latin-1") for name, value in headers if name == _SERVICE), "")
        if self._accepts(service):
            return Finding(degraded=degraded, verified=True)
        return Finding(FailureKind.ACTIVE, f"the service that answers is {service!r}", verified=True)


def request_of(check: HttpHealthCheck, target: Target) -> WireRequest:
    """The request every check sends."""
    headers: _Headers = [(b"host", target.hostname.encode("latin-1", "replace")), (b"user-agent", USER_AGENT)]
    if check.send:
        headers.append((b"content-length", str(len(check.send)).encode()))
    mutate = compile_mutations(check.request_headers)
    if mutate is not None:
        scheme = "http" if target.tls is None else "https"
        headers = mutate(headers, RequestHead(check.method, scheme, target.hostname, check.path, headers))
    return WireRequest(check.method.encode(), check.path.encode("latin-1", "replace"), headers, check.send or None)


def _within(status: int, ranges: tuple[StatusRange, ...]) -> bool:
    return any(first <= status < end for first, end in ranges)
