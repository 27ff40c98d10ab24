"""Load reports in the trailing metadata of a cluster's calls (gRFC A51), for balancers that go by them (A58).

grpcio reads `endpoint-load-metrics-bin` itself and shows it to nobody, so what is seen here is `endpoint-load-metrics`,
which servers of this library send beside it. Where there is only the binary one, reports must come out of band.
"""

from __future__ import annotations

import time
from typing import Any

from meshlib.engine.commands import Start
from meshlib.model.orca import HEADER, HEADER_BIN


def wants_trailers(start: Start) -> bool:
    """Whether the attempt's cluster wants to see trailing metadata."""
    return start.cluster.take_report is not None


def take_trailers(start: Start, metadata: Any) -> None:
    """Hand a load report on to the cluster that wants it."""
    take = start.cluster.take_report
    if take is None:
        return
    found = {name: value for name, value in metadata or () if name in (HEADER, HEADER_BIN)}
    if found:
        take(start.host, found.get(HEADER_BIN), found.get(HEADER), time.monotonic())
