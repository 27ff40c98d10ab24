"""Load reports out of band: a stream of `OpenRcaService` from each endpoint whose cluster asks for it (gRFC A51, A58).

A thread for each endpoint, which does nothing but wait: a blocking stream of grpcio has no callback, and
its asyncio ones would take part in the application's loop. A stream that ends is begun anew after a while.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.balancing.client_side import take_in
from meshlib.engine.commands import Start
from meshlib.errors import ConfigurationError
from meshlib.grpc import unpatched
from meshlib.grpc.forked import refusals, refusing
from meshlib.grpc.subchannels import Settings, SubChannels
from meshlib.model.lb import ClientSideWeightedRoundRobin
from meshlib.model.orca import LoadReport, report_request
from meshlib.model.outcome import Failure
from meshlib.model.request import RequestHead

if TYPE_CHECKING:
    from meshlib.balancing.base import Host
    from meshlib.engine.cluster import ClusterPlan
    from meshlib.engine.plan import Plan
    from meshlib.mesh import Mesh

log = logging.getLogger("meshlib")
PATH = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"
FIRST_WAIT, LONGEST_WAIT, GROWTH = 1.0, 120.0, 1.6  # gRPC's connection back-off, in seconds
Key = tuple[str, str]
_parents: list[OutOfBandReports] = []


class OutOfBandReports:
    """The streams of one mesh. `follow` makes them those of a plan."""

    def __init__(self, mesh: Mesh) -> None:
        refused, _ = refusals(bool(_parents), ())
        make = refusing(refused) if refused else unpatched.channel
        self._subchannels = SubChannels(mesh.upstreams, make, lambda channel: channel.close())
        self._streams: dict[Key, ReportStream] = {}
        self._plan: Plan = mesh.plan
        self._lock = threading.Lock()  # over plans, not over streams

    def follow(self, plan: Plan) -> None:
        """Begin the streams a plan asks for, and end those it no longer does."""
        wanted = {
            (cluster.name, host.address): (cluster, host)
            for cluster in plan.clusters.values()
            if getattr(cluster.config.lb_policy, "oob_reporting_period", None) is not None
            for host in cluster.balancer.hosts
        }
        with self._lock:
            self._plan = plan
            for key in [key for key in self._streams if key not in wanted]:
                self._streams.pop(key).stop()
            for key, (cluster, host) in wanted.items():
                stream = self._streams.get(key)
                if stream is not None:
                    stream.towards(cluster, host)
                    continue
                try:
                    self._streams[key] = ReportStream(self, cluster, host)
                except RuntimeError as error:  # no more threads: calls matter more, and the next plan tries again
                    log.error("%d endpoints tell no load: %s", len(wanted) - len(self._streams), error)
                    return

    def open(self, cluster: ClusterPlan, host: Host) -> Any:
        """A stream to an endpoint, as calls of its cluster would connect. Raises ConfigurationError, RpcError."""
        head = RequestHead("POST", "http", cluster.name, PATH, [])
        start = Start(1, cluster, host, head, None, Failure.TIMEOUT, None)
        subchannel = self._subchannels.enter(self._plan, start, Settings())
        policy: Any = cluster.config.lb_policy
        try:
            call = subchannel.channel.unary_stream(PATH)(report_request(policy.oob_reporting_period))
        except BaseException:
            subchannel.leave(start)
            raise
        call.add_done_callback(lambda _: subchannel.leave(start))
        return call

    def keep(self) -> None:
        """In a forked child: these are the parent's. To let go of its channels would close them, which may hang."""
        _parents.append(self)

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.stop()
        self._subchannels.close()


class ReportStream:
    """The stream of one endpoint, with its thread."""

    def __init__(self, owner: OutOfBandReports, cluster: ClusterPlan, host: Host) -> None:
        self._owner = owner
        self._target = cluster, host
        self._stopped = threading.Event()
        self._call: Any = None
        threading.Thread(target=self._run, name=f"meshlib-load-{host.address}", daemon=True).start()

    def towards(self, cluster: ClusterPlan, host: Host) -> None:
        """A newer plan's idea of the same endpoint; another period asks anew."""
        before, self._target = self._target, (cluster, host)
        if before[0].config.lb_policy != cluster.config.lb_policy and self._call is not None:
            self._call.cancel()

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        if self._call is not None:
            self._call.cancel()

    def _run(self) -> None:
        wait = FIRST_WAIT
        while not self._stopped.is_set():
            heard, goes_on = self._listen()
            if not goes_on:
                return
            wait = FIRST_WAIT if heard else min(wait * GROWTH, LONGEST_WAIT)
            self._stopped.wait(wait * random.uniform(0.8, 1.2))  # noqa: S311  endpoints are not asked in step

    def _listen(self) -> tuple[bool, bool]:
        """(Whether anything was heard, whether to try again)."""
        heard = False
        cluster, host = self._target
        try:
            self._call = self._owner.open(cluster, host)
            if self._stopped.is_set():
                self._call.cancel()
            for data in self._call:
                heard = True
                self._take(data)
        except ConfigurationError as error:
            log.warning("no load reports of %s: %s", host.address, error)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:  # asking again would not help (A51)
                log.warning("endpoint %s of cluster %r has no load reports to give", host.address, cluster.name)
                return heard, False
        except Exception:  # whatever it is, the endpoint is asked again
            if not self._stopped.is_set():
                log.exception("no load reports of %s", host.address)
        return heard, True

    def _take(self, data: bytes) -> None:
        cluster, host = self._target
        policy = cluster.config.lb_policy
        if not isinstance(policy, ClientSideWeightedRoundRobin):
            return
        try:
            report = LoadReport.from_bytes(data)
        except ValueError as error:
            log.debug("a load report of %s cannot be read: %s", host.address, error)
            return
        take_in(policy, host, report, time.monotonic())
