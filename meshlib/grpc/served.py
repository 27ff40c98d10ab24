"""What a handler gets as its context: the server's own, with the request id, and what filters add, on what goes back to
the caller.

Initial metadata are sent with the first message or the good end, never earlier: an error must stay "trailers-only".
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from meshlib.engine.exchange import REQUEST_ID

Metadata = tuple[tuple[str, str | bytes], ...]
_FINE = (None, grpc.StatusCode.OK, 0)


class ServedContext:
    """The context of a blocking handler on `grpc.server`. Everything not named here is the server's own."""

    def __init__(self, context: Any, request_id: str, added: Metadata = ()) -> None:
        self._context = context
        self._request_id = request_id
        self._added = added
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def _marked(self, metadata: Any) -> Metadata:
        return marked(metadata, self._request_id, self._added)

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """As the server's own."""
        self._begun = True
        self._context.send_initial_metadata(self._marked(initial_metadata))

    def begin(self) -> None:
        """The first message is about to be sent."""
        if not self._begun:
            self.send_initial_metadata(())

    def end(self) -> None:
        """The handler has returned, with a status of its own or a good one."""
        if self.code() in _FINE:
            self.begin()
        else:
            self.fail()

    def fail(self) -> None:
        """The handler has ended with an error."""
        if not self._begun:
            self.set_trailing_metadata(self._marked(self.trailing_metadata()))


class MigratedContext(ServedContext):
    """The context of a blocking handler on `grpc.aio.server`, which does not tell what it was told."""

    def __init__(self, context: Any, request_id: str, added: Metadata = ()) -> None:
        super().__init__(context, request_id, added)
        self._code: Any = None
        self._trailing: Any = ()

    def code(self) -> Any:
        """The status set so far."""
        return self._code

    def set_code(self, code: Any) -> None:
        """As the server's own."""
        self._code = code
        self._context.set_code(code)

    def trailing_metadata(self) -> Any:
        """The trailing metadata set so far."""
        return self._trailing

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """As the server's own."""
        self._trailing = trailing_metadata
        self._context.set_trailing_metadata(trailing_metadata)

    def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> None:
        """As the server's own: raises."""
        self._code = code
        trailing = tuple(trailing_metadata) or self._trailing
        self._context.abort(code, details, trailing if self._begun else self._marked(trailing))


class AioServedContext:
    """The context of an asyncio handler on `grpc.aio.server`. Everything not named here is the server's own."""

    def __init__(self, context: Any, request_id: str, added: Metadata = ()) -> None:
        self._context = context
        self._request_id = request_id
        self._added = added
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def _marked(self, metadata: Any) -> Metadata:
        return marked(metadata, self._request_id, self._added)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """As the server's own."""
        self._begun = True
        await self._context.send_initial_metadata(self._marked(initial_metadata))

    async def write(self, message: Any) -> None:
        """As the server's own."""
        await self.begin()
        await self._context.write(message)

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> None:
        """As the server's own: raises."""
        trailing = tuple(trailing_metadata) or tuple(self._context.trailing_metadata())
        await self._context.abort(code, details, trailing if self._begun else self._marked(trailing))

    async def abort_with_status(self, status: Any) -> None:
        """As the server's own: raises."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    async def begin(self) -> None:
        """The first message is about to be sent."""
        if not self._begun:
            await self.send_initial_metadata(())

    async def end(self) -> None:
        """The handler has returned, with a status of its own or a good one."""
        if self._context.code() in _FINE:
            await self.begin()
        else:
            self.fail()

    def fail(self) -> None:
        """The handler has ended with an error."""
        if not self._begun:
            self._context.set_trailing_metadata(self._marked(self._context.trailing_metadata()))


grpc.ServicerContext.register(ServedContext)
grpc.aio.ServicerContext.register(AioServedContext)


def marked(metadata: Any, request_id: str, added: Metadata = ()) -> Metadata:
    """Metadata with what filters add to a response, and with the request id, unless the application has set one."""
    pairs = (*(metadata or ()), *added)
    if any(name.lower() == REQUEST_ID for name, _ in pairs):
        return pairs
    return (*pairs, (REQUEST_ID, request_id))
