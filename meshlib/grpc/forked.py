"""What grpcio survives of a fork, and what it does not: then a child is refused with the reason, where it would hang.

Measured with grpcio 1.85 (tests/e2e/fork/test_grpc_fork.py); a row is what the parent had done, and how new calls of
the child fare, on channels made before the fork or after it:

    parent                                              blocking         asyncio
    nothing, or imported grpc                           work             work
    called, or closed its channels                      work             work
    reads a stream in a thread                          work (*)         work (*)
    an event loop that called, and is closed            work             work
    an event loop alive in a thread                     work             hang, or end the process (refused)
    the same with GRPC_ENABLE_FORK_SUPPORT=0:
    anything but the first row                          hang (refused)   hang (refused)

(*) grpcio does not prepare for a fork while a thread is inside it: one child in some 200 died of it.

A fork within milliseconds of closing the last channel may hang all the same: grpcio is then ending its core in a thread
of its own, and does not know of the fork.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Any

from meshlib.errors import ConfigurationError

_LOOP = (
    "grpc.aio does not survive a fork while an event loop of the parent is using it: fork first and call then, close "
    "that loop before, or call on the blocking channel here"
)
_UNSUPPORTED = (
    "gRPC was in use when this process was forked, and GRPC_ENABLE_FORK_SUPPORT=0 keeps it from surviving that: unset "
    "the variable, or make the first call after the fork"
)
_OFF = frozenset(("0", "false", "f", "no", "n"))


def refusals(used: bool, loops: Iterable[asyncio.AbstractEventLoop]) -> tuple[str, str]:
    """Why a forked child's blocking calls are refused, and why its asyncio calls are; empty where they work."""
    if used and os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in _OFF:
        return _UNSUPPORTED, _UNSUPPORTED
    return "", "" if all(loop.is_closed() for loop in loops) else _LOOP


def refusing(reason: str) -> Callable[..., Any]:
    """In place of what makes channels: raises ConfigurationError."""

    def make(*_: Any) -> Any:
        raise ConfigurationError(reason)

    return make
