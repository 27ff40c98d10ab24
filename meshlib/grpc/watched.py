"""Serving a gRPC call that somebody watches: what its status was."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from meshlib.engine.exchange import Admission
    from meshlib.engine.watch import Watch

_UNKNOWN, _CANCELLED = 2, 1
_GONE = (asyncio.CancelledError, GeneratorExit)


class Watched:
    """`with Watched(admission.watch, context):` around the handler. The span is the current one within; for a stream
    that is between two messages as well, so that leaving asks whether it is still (`ServerTrace.leave`).
    """

    __slots__ = ("_context", "_watch")

    def __init__(self, watch: Watch | None, context: Any) -> None:
        self._watch = watch
        self._context = context

    def __enter__(self) -> None:
        if self._watch is not None:
            self._watch.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.leave()
            whole = error is None or not isinstance(error, _GONE)
            status = _status(self._context.code(), error)
            self._watch.ended(time.monotonic(), None, grpc_status=status, whole=whole)


def refused(admission: Admission, code: grpc.StatusCode) -> None:
    """The call is not served."""
    if admission.watch is not None:
        flag = admission.reply.flag if admission.reply is not None else None
        admission.watch.ended(time.monotonic(), None, grpc_status=code.value[0], flag=flag)


def _status(code: Any, error: BaseException | None) -> int:
    """The status a call ends with: what the handler has set, else what the server makes of how it ended."""
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code or 0
    if number or error is None:
        return int(number)
    return _CANCELLED if isinstance(error, _GONE) else _UNKNOWN
