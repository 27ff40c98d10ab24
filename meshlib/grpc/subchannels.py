"""Sub-channels: one plain gRPC channel per endpoint of a cluster, kept as long as the plan names the endpoint.

A registry belongs to one mesh and, for grpc.aio, to one event loop; every mesh channel of that mesh shares it. It
notices a new plan when it is next used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.commands import Start
from meshlib.engine.plan import Plan
from meshlib.grpc.credentials import Options, secured, tunnel_credentials, tunnel_to
from meshlib.grpc.target import dialled_all
from meshlib.identity.upstream import PLAIN, Secured, Upstreams
from meshlib.model.cluster import UpstreamTls
from meshlib.model.endpoint import Address

MAX_AUTHORITIES = 64
"""Sub-channels of one endpoint that differ by `:authority` or a channel's options: callers and headers choose those, so
they must have an end."""
_KEEPALIVE = 330_000  # servers of grpcio and grpc-go allow a ping every 5 minutes; one more often is punished
_PING_TIMEOUT = 20_000
COMMON_OPTIONS: Options = (
    ("grpc.service_config_disable_resolution", 1),  # the route says what is retried, nobody's DNS does
    ("grpc.enable_retries", 0),  # the engine does those that gRPC calls transparent, too
    ("grpc.enable_http_proxy", 0),  # endpoints are dialled, as Envoy dials them
    ("grpc.use_local_subchannel_pool", 1),  # else channels of one address share a connection, closed or not
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),  # the default, two minutes, keeps an endpoint down that came back
    ("grpc.keepalive_time_ms", _KEEPALIVE),
    ("grpc.keepalive_timeout_ms", _PING_TIMEOUT),
    ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT),  # without it keepalive alone never finds a frozen peer
)


class Settings(NamedTuple):
    """What a mesh channel asks of its sub-channels: channel options, and credentials where a cluster has no TLS."""

    options: Options = ()
    credentials: Any = None


class Demands(NamedTuple):
    """What of a cluster the connections to an endpoint depend on."""

    tls: UpstreamTls | None
    connect_timeout: float
    idle_timeout: float | None
    targets: tuple[Address, ...]


class SubChannel:
    """One gRPC channel. `live` holds a token per call in flight; drained, it closes when the last one ends."""

    __slots__ = ("_close", "channel", "closed", "draining", "live")

    def __init__(self, channel: Any, close: Callable[[Any], None]) -> None:
        self.channel = channel
        self.live: dict[object, None] = {}
        self.draining = False
        self.closed = False
        self._close = close

    def enter(self, token: object) -> bool:
        """Take part; False when the channel is being drained (look for another one)."""
        self.live[token] = None
        if self.draining:
            self.leave(token)
            return False
        return True

    def leave(self, token: object) -> None:
        """The call is over."""
        self.live.pop(token, None)
        if self.draining and not self.live:
            self.close()

    def drain(self) -> None:
        """No new calls; close when the last one has ended."""
        self.draining = True
        if not self.live:
            self.close()

    def close(self) -> None:
        """Close now: calls in flight are cancelled."""
        self.draining = True
        if not self.closed:
            self.closed = True
            self._close(self.channel)


Key = tuple[str, str, str, Settings]
"""Cluster, endpoint, authority, and what the mesh channel asked for."""
Found = tuple[ClusterPlan, SubChannel, Secured, "Demands"]
T = TypeVar("T")


class SubChannels:
    """Sub-channels by (cluster, endpoint). `make(target, options, credentials)` makes a gRPC channel, `close(channel)`
    closes it. One lasts as long as what its TLS was made of: when certificates or authorities rotate, new calls go by
    a new one at once, and the old one closes with its last call.
    """

    def __init__(
        self, upstreams: Upstreams, make: Callable[[str, Options, Any], Any], close: Callable[[Any], None]
    ) -> None:
        self._upstreams = upstreams
        self._make = make
        self._close = close
        self._found: dict[Key, Found] = {}
        self._plan: Plan | None = None

    def __len__(self) -> int:
        return len(self._found)

    def enter(self, plan: Plan, start: Start, settings: Settings) -> SubChannel:
        """The sub-channel for an attempt, entered with `start` as the token; `plan` is the one in force.

        Raises ConfigurationError when the cluster's TLS cannot be used.
        """
        if plan is not self._plan:
            self._follow(plan)
        key = (start.cluster.name, start.host.address, start.head.authority, settings)
        while True:
            found = self._found.get(key)
            if found is None or found[0] is not start.cluster or found[2].stale:
                found = self._adopt(key, start, found)
            if found[1].enter(start):
                return found[1]
            if self._found.get(key) is found:  # a new plan drained it meanwhile
                self._found.pop(key, None)

    def forget(self, start: Start, settings: Settings) -> None:
        """Let go of an attempt's sub-channel: it closes with its last call."""
        found = self._found.pop((start.cluster.name, start.host.address, start.head.authority, settings), None)
        if found is not None:
            found[1].drain()

    def close(self) -> None:
        """Close every sub-channel, calls in flight or not."""
        for key in list(self._found):
            if (gone := self._found.pop(key, None)) is not None:
                gone[1].close()

    def _adopt(self, key: Key, start: Start, found: Found | None) -> Found:
        """Take a sub-channel over to the attempt's plan if its settings are the same, else make one."""
        cluster, demands = start.cluster, _demands(start)
        if found is not None and not found[2].stale and found[3] == demands:
            kept = self._found[key] = (cluster, found[1], found[2], demands)
            return kept
        protection = PLAIN if demands.tls is None else secured(self._upstreams, demands.tls, key[2])
        made = (cluster, self._new(key, start, demands), protection, demands)
        if found is not None:
            self._found[key] = made
            found[1].drain()
            return made
        # Two threads may get here at once: the first one's channel is everybody's.
        kept = self._found.setdefault(key, made)
        if kept is not made:
            made[1].close()
        self._bound(key)
        return kept

    def _new(self, key: Key, start: Start, demands: Demands) -> SubChannel:
        where = demands.targets[0]
        _, _, authority, settings = key
        options: Options = (
            *COMMON_OPTIONS,
            ("grpc.min_reconnect_backoff_ms", max(1, int(demands.connect_timeout * 1000))),  # bounds connecting, too
            ("grpc.default_authority", authority),
        )
        if demands.idle_timeout is not None:
            options = (*options, ("grpc.client_idle_timeout_ms", max(1000, int(demands.idle_timeout * 1000))))
        options = _merged(options, settings.options)
        if demands.tls is None:
            target = dialled_all(demands.targets)
            return SubChannel(self._make(target, options, settings.credentials), self._close)
        tunnel = tunnel_to(self._upstreams, demands.tls, where, authority, demands.connect_timeout)

        def close(channel: Any) -> None:
            self._close(channel)
            tunnel.close()

        return SubChannel(self._make(tunnel.target, options, tunnel_credentials()), close)

    def _bound(self, key: Key) -> None:
        """Drain the oldest of an endpoint's sub-channels, if there are too many."""
        alike = [other for other in list(self._found) if other[:2] == key[:2]]
        for oldest in alike[:-MAX_AUTHORITIES]:
            if (gone := self._found.pop(oldest, None)) is not None:
                gone[1].drain()

    def _follow(self, plan: Plan) -> None:
        """Drain the sub-channels of endpoints the new plan does not have."""
        self._plan = plan
        for key, (cluster, channel, _, _) in list(self._found.items()):
            now = plan.clusters.get(key[0])
            if now is cluster:
                continue
            if now is None or key[1] not in now.addresses:
                self._found.pop(key, None)
                channel.drain()


def _merged(options: Options, asked: Options) -> Options:
    """The options with the caller's, which win but for the authority, which is the route's to say."""
    ours = {name for name, _ in asked}
    asked = tuple(pair for pair in asked if pair[0] != "grpc.default_authority")
    return (*(pair for pair in options if pair[0] not in ours or pair[0] == "grpc.default_authority"), *asked)


def _demands(start: Start) -> Demands:
    cluster, endpoint = start.cluster, start.host.endpoint
    config = cluster.config
    return Demands(config.tls_of(endpoint), cluster.connect_timeout, config.idle_timeout, endpoint.targets)
