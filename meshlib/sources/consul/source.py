"""ConsulSource: a Consul agent as a source of configuration.

One daemon thread with an event loop of its own (`runner`) holds every blocking query; the catalog says what the answers
come to; a snapshot goes to the sink. An agent that is gone, hangs or answers nonsense changes nothing: the last
snapshot stays.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.sources.base import Sink
from meshlib.sources.consul.catalog import Catalog
from meshlib.sources.consul.client import ConsulClient
from meshlib.sources.consul.names import ServiceName, named_service
from meshlib.sources.consul.query import Consistency
from meshlib.sources.consul.runner import ConsulStats, Known, Runner
from meshlib.sources.consul.service import CONSUL_OPTIONS, ConsulOptions
from meshlib.sources.consul.settings import ConsulSettings, load_settings
from meshlib.sources.consul.watches import WATCH_LIMITS, WatchLimits


class ConsulSource:
    """Services of a Consul agent, by blocking queries: health, and the discovery chain for routes and splits.

    `settings`: None reads the environment (`load_settings`) at `start`. `declared`: services to watch from the start;
    others are watched when first called, by any of their names (`names`). `domain` is that of Consul's DNS.
    `consistency`: of every read. The agent's `limits.http_max_conns_per_client` (200) is for all processes of a host:
    keep `limits.connections` times processes below it.
    """

    def __init__(
        self,
        settings: ConsulSettings | None = None,
        *,
        declared: Iterable[str] = (),
        options: ConsulOptions = CONSUL_OPTIONS,
        consistency: Consistency = "default",
        limits: WatchLimits = WATCH_LIMITS,
        domain: str = "consul",
    ) -> None:
        self._settings = settings
        self._declared = tuple(named_service(name, domain) or ServiceName(name) for name in declared)
        self._consistency: Consistency = consistency
        self._limits = limits
        self._domain = domain
        self._options = options
        self._known = Known(Catalog(options))
        self._runner: Runner | None = None

    def start(self, sink: Sink) -> None:
        """Begin to watch in a daemon thread; returns at once. In a forked child goes on from what the parent knew.
        Raises `ConfigurationError` for settings that cannot be, `ResourceError` for a declared name that cannot.
        """
        settings = self._settings or load_settings()
        for name in self._declared:
            self._known.catalog.declare(name)
        waiting, short = (ConsulClient(settings, self._consistency) for _ in range(2))
        self._runner = Runner(self._known, sink, (waiting, short), self._limits, self._domain)
        self._runner.start()

    def request(self, authority: str) -> None:
        """Ask for an authority. From any thread; returns at once."""
        runner = self._runner
        if runner is None or authority in self._known.asked:
            return
        self._known.asked[authority] = None
        runner.call_soon(authority)

    def close(self) -> None:
        """Stop watching; nothing is delivered any more. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.stop()
        self._known = Known(Catalog(self._options))

    def forget(self) -> None:
        """In a forked child: the parent's thread and sockets are not ours; what is known stays."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.forget()

    def stats(self) -> ConsulStats:
        """Counters of this process, and how stale its knowledge is."""
        runner = self._runner
        return runner.stats() if runner is not None else ConsulStats()
