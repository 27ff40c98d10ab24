"""A gRPC call is counted as one however it ends: dashboards must see those the mesh failed, or answered, itself."""

from __future__ import annotations

import pytest

from meshlib.engine.commands import BodyEnd, abandon
from meshlib.engine.measured import Measured
from meshlib.engine.runtime import Runtime
from meshlib.grpc.metadata import CONTENT_TYPE
from meshlib.model.outcome import GRPC_STATUS_PENDING, Failure, Outcome
from meshlib.model.request import RequestHead
from meshlib.telemetry.metrics import catalogue
from meshlib.telemetry.metrics.cells import Cells
from parts.flow import Player, limited_cluster, runtime_of


def call(authority: str = "payments") -> RequestHead:
    return RequestHead("POST", "http", authority, "/shop.Payments/Charge", [CONTENT_TYPE])


def measured(runtime: Runtime) -> Cells:
    cells = Cells()
    runtime.observers = (Measured(cells),)
    return cells


def statuses(cells: Cells) -> list[str]:
    """The statuses of the gRPC calls that were counted; nothing may have been counted as HTTP."""
    samples = list(cells.samples())
    assert not any(sample.metric is catalogue.CLIENT_DURATION for sample in samples)
    return [sample.labels[2] for sample in samples if sample.metric is catalogue.RPC_CLIENT_DURATION]


@pytest.mark.parametrize(
    "failure, status", [(Failure.CONNECT, "14"), (Failure.RESET, "14"), (Failure.TIMEOUT, "4"), (Failure.LOCAL, "1")]
)
def test_one_without_an_answer(failure: Failure, status: str) -> None:
    runtime = runtime_of()
    cells = measured(runtime)
    Player(runtime, call()).fails(failure, at=0.1)
    assert statuses(cells) == [status]


def test_one_that_was_never_sent() -> None:
    runtime = runtime_of({"payments": []})
    cells = measured(runtime)
    Player(runtime, call())
    assert statuses(cells) == ["14"]
    runtime = runtime_of()
    cells = measured(runtime)
    Player(runtime, call("unknown"))
    assert statuses(cells) == ["14"]


def test_one_over_a_limit() -> None:
    runtime = runtime_of({"payments": limited_cluster(limits={"max_requests": 0})})
    cells = measured(runtime)
    Player(runtime, call())
    assert statuses(cells) == ["14"]


def test_one_whose_caller_went_away() -> None:
    runtime = runtime_of()
    cells = measured(runtime)
    abandon(Player(runtime, call()).flow, 0.1)
    assert statuses(cells) == ["1"]


@pytest.mark.parametrize(
    "failure, in_trailers, status",
    [
        (None, 0, "0"),
        (None, 8, "8"),
        (Failure.LOCAL, None, "1"),
        (Failure.RESET, None, "14"),
        (Failure.TIMEOUT, None, "4"),
    ],
)
def test_a_stream(failure: Failure | None, in_trailers: int | None, status: str) -> None:
    runtime = runtime_of()
    cells = measured(runtime)
    player = Player(runtime, call())
    begun = Outcome(200, grpc_status=GRPC_STATUS_PENDING)
    begun.at = 0.1
    player.send(begun)
    player.send(BodyEnd(0.2, failure, in_trailers))
    assert statuses(cells) == [status]
