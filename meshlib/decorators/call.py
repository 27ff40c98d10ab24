"""One call of a guarded function: the wire of a driver, whose attempts are calls of the function."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from contextvars import Token
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from meshlib.context import CallContext, current
from meshlib.decorators import errors
from meshlib.decorators.attempt import running
from meshlib.decorators.outcome import EXCLUDED, OK, of_error
from meshlib.drivers import aio, sync
from meshlib.drivers.racing import Apart
from meshlib.engine.call import call_flow
from meshlib.engine.commands import BodyEnd, Commit, Fail, Mirror, PassThrough, Reply, Start, Terminal
from meshlib.engine.stand_in import STAND_IN
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.report import Issue
from meshlib.model.request import RequestHead

if TYPE_CHECKING:
    from meshlib.decorators.policy import GuardPolicy
    from meshlib.mesh import Mesh
    from meshlib.telemetry.tracing import Tracing

    Tokens = tuple[Token[CallContext], Token[Any], tuple[Tracing, object] | None]

_MOST_JUDGED = 32


class Call:
    """What the blocking and the asyncio call share. `function` is the guarded one with its arguments bound; `judged`
    holds what guarded functions called by it have raised last, while an attempt runs: a task that the function has left
    behind still knows this call, and may fail for ever.
    """

    __slots__ = ("context", "enclosing", "final_deadline", "flow", "function", "inside", "judged", "mesh", "policy")

    def __init__(
        self, mesh: Mesh, policy: GuardPolicy, function: Callable[[], Any], head: RequestHead, context: CallContext
    ) -> None:
        self.mesh = mesh
        self.policy = policy
        self.function = function
        self.context = context
        around = running.get()
        self.enclosing: Call | None = None if around is None else around[0]
        self.judged: deque[BaseException] | None = None
        self.inside: dict[Start, None] = {}
        self.final_deadline: float | None = None
        self.flow = call_flow(
            mesh.runtime,
            head,
            time.monotonic(),
            deadline=context.deadline,
            replayable=policy.replayable,
            stand_in=STAND_IN,
        )

    def enter(self, start: Start) -> Tokens:
        """Into the attempt's context: what the function calls through the mesh inherits the attempt's deadline, and
        belongs to the attempt's span.
        """
        self.final_deadline = start.final_deadline
        self.inside[start] = None
        self.judged = self.judged or deque(maxlen=_MOST_JUDGED)
        tracing = self.mesh.runtime.tracing
        entered = None if tracing is None else (tracing, tracing.enter(start.head))
        return current.set(self.context.until(start.deadline)), running.set((self, start)), entered

    def leave(self, start: Start, tokens: Tokens) -> None:
        """Out of it."""
        self.inside.pop(start, None)
        if not self.inside:  # attempts of a call that hedges overlap
            self.judged = None
        if tokens[2] is not None:
            tracing, entered = tokens[2]
            tracing.leave(entered)
        with contextlib.suppress(ValueError):  # a coroutine that is closed from another context
            running.reset(tokens[1])
            current.reset(tokens[0])

    def mirror(self, mirror: Mirror) -> None:
        """A function is not called a second time for nobody: that is said, once for each route."""
        route = mirror.decision.route.label
        reason = "calls of guarded functions are not mirrored"
        self.mesh.report((Issue("degraded", f"route {route}", "request_mirror_policies", reason),))

    def returned(self, value: Any) -> Outcome:
        """The function returned."""
        status = self.policy.classify(value, None) if self.policy.classify is not None else None
        return Outcome(OK if status is None else status, response=value)

    def raised(self, error: Exception) -> Outcome:
        """The function raised. What the guard was told of it comes first, then what the exception says of itself."""
        status = self.policy.classify(None, error) if self.policy.classify is not None else None
        if status is None and isinstance(error, self.policy.exclude):
            status = EXCLUDED
        return of_error(error, self.judged or ()) if status is None else Outcome(status, error=error)

    def settled(self, terminal: Terminal) -> tuple[Any, BaseException | None]:
        """What the function returned, or the exception for its caller."""
        if isinstance(terminal, Commit):
            return self._committed(terminal)
        self.flow.close()
        if isinstance(terminal, Fail):
            return None, self._told(errors.of_failure(terminal), terminal.outcome)
        return None, self._told(errors.of_reply(terminal)) if isinstance(terminal, Reply) else None

    def _committed(self, commit: Commit) -> tuple[Any, BaseException | None]:
        """A result that is late is counted as that, and is still the result."""
        outcome, final = commit.outcome, self.final_deadline
        late = final is not None and outcome.at > final
        with contextlib.suppress(StopIteration):
            self.flow.send(BodyEnd(outcome.at, Failure.TIMEOUT if late else None))
        if outcome.error is None:
            return outcome.response, None
        return None, self._told(errors.of_result(outcome, commit.info), outcome)

    def _told(self, error: BaseException, outcome: Outcome | None = None) -> BaseException:
        """The exception, of which the guarded function around this one is to know that it has been judged. The outcome
        lets go of it: frames of its traceback still hold that.
        """
        if outcome is not None:
            outcome.error = None
        judged = None if self.enclosing is None else self.enclosing.judged
        if judged is not None:
            judged.append(error)
        return error


class SyncCall(Call):
    """A call of a blocking function. Nothing can interrupt it while it runs: deadlines are held before and after."""

    __slots__ = ()

    def run(self) -> Any:
        """The function's result, or an exception."""
        terminal = sync.drive(self.flow, self, self.mesh)
        if isinstance(terminal, PassThrough):
            self.flow.close()
            return self.function()
        value, error = self.settled(terminal)
        if error is None:
            return value
        del terminal
        try:
            raise error
        finally:
            del error  # or it would hold itself, by its traceback and this frame

    def attempt(self, start: Start) -> Outcome:
        """Call the function once."""
        tokens = self.enter(start)
        try:
            value = self.function()
        except Exception as error:  # noqa: BLE001  whatever it is, it is the function's word and is raised again
            return self._raised(error, start)
        finally:
            self.leave(start, tokens)
        if isinstance(value, CoroutineType):
            value.close()
            raise TypeError("the guarded function returned a coroutine; guard the async function itself")
        return self.returned(value)

    def apart(self, start: Start, apart: Apart) -> Outcome:
        """One of several calls of the function, each on a thread of its own. Nothing can interrupt it."""
        return self.attempt(start)

    def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """A result that will not be used: it is the garbage collector's."""

    def _raised(self, error: Exception, start: Start) -> Outcome:
        outcome = self.raised(error)
        over = start.deadline is not None and time.monotonic() >= start.deadline
        if over and outcome.failure is not Failure.NESTED:
            return Outcome(failure=start.on_deadline, error=error)
        return outcome


class AsyncCall(Call):
    """A call of an async function. At its deadline an attempt is cancelled."""

    __slots__ = ()

    async def run(self) -> Any:
        """The function's result, or an exception."""
        terminal = await aio.drive(self.flow, self, self.mesh)
        if isinstance(terminal, PassThrough):
            self.flow.close()
            return await self.function()
        value, error = self.settled(terminal)
        if error is None:
            return value
        del terminal
        try:
            raise error
        finally:
            del error  # as above

    async def attempt(self, start: Start) -> Outcome:
        """Await the function once, at most until the attempt's deadline."""
        limit = asyncio.timeout(None if start.deadline is None else start.deadline - time.monotonic())
        tokens = self.enter(start)
        try:
            async with limit:
                value = await self.function()
        except Exception as error:  # noqa: BLE001  whatever it is, it is the function's word and is raised again
            return Outcome(failure=start.on_deadline) if limit.expired() else self.raised(error)
        finally:
            self.leave(start, tokens)
        return self.returned(value)

    async def apart(self, start: Start) -> Outcome:
        """One of several calls of the function, each a task of its own."""
        return await self.attempt(start)

    async def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """A result that will not be used: it is the garbage collector's."""
