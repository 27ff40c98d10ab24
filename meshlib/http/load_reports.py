"""Middlewares that put a server's load report on its responses (`endpoint-load-metrics-bin`), for ASGI and WSGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

from meshlib.load_reports import LoadRecorder
from meshlib.model.orca import HEADER_BIN

__all__ = ["LoadReportASGI", "LoadReportWSGI"]

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
_NAME = HEADER_BIN.encode("ascii")


class LoadReportASGI:
    """`app.add_middleware(LoadReportASGI, recorder=recorder)`. A response of 500 or more, or none, is an error."""

    def __init__(self, app: Callable[..., Awaitable[None]], recorder: LoadRecorder) -> None:
        self.app = app
        self.recorder = recorder

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def send_with_report(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                report = self.recorder.report().to_header().encode("ascii")
                message["headers"] = [*message.get("headers", ()), (_NAME, report)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_report)
        finally:
            self.recorder.served(failed=status >= 500)


class LoadReportWSGI:
    """`app.wsgi_app = LoadReportWSGI(app.wsgi_app, recorder)`. A response of 500 or more, or none, is an error."""

    def __init__(self, app: Callable[..., Iterable[bytes]], recorder: LoadRecorder) -> None:
        self.app = app
        self.recorder = recorder

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        started = failed = False

        def start_with_report(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            nonlocal started, failed
            started, failed = True, status.startswith("5")
            return start_response(status, [*headers, (HEADER_BIN, self.recorder.report().to_header())], *error)

        try:
            body = self.app(environ, start_with_report)
        except BaseException:
            self.recorder.served(failed=True)
            raise
        if not started:  # a generator: nothing of it has run yet
            return self._counted(body, lambda: failed or not started)
        self.recorder.served(failed=failed)
        return body

    def _counted(self, body: Iterable[bytes], failed: Callable[[], bool]) -> Iterator[bytes]:
        """The body of a response that begins with it."""
        try:
            yield from body
        finally:
            self.recorder.served(failed=failed())
            if hasattr(body, "close"):
                body.close()
