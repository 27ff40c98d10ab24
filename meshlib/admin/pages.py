"""The pages of the admin socket: functions of a query and a body to text."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.engine.events import HealingChanged
    from meshlib.engine.plan import Plan
    from meshlib.engine.runtime import Runtime
    from meshlib.explain import Explainer

Query = Sequence[tuple[str, str]]
Page = Callable[[Query, str], str]


class PageError(Exception):
    """The question cannot be answered; `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def pages(runtime: Callable[[], Runtime], ready: Callable[[], bool]) -> dict[str, Page]:
    """Every page of a mesh, by path. `runtime` gives the runtime of now."""
    return {"/explain": ExplainPage(runtime, ready), "/healing": HealingPage(runtime)}


class ExplainPage:
    """`/explain?method=GET&url=http://payments/&header=x-canary:1`: where a call of this process would go, and why, by
    the configuration in force and the state of its endpoints now. Nothing is sent anywhere, and no turn is taken.

    `format=text` for people; JSON otherwise (`meshlib.explain.Explanation`).
    """

    def __init__(self, runtime: Callable[[], Runtime], ready: Callable[[], bool]) -> None:
        self._runtime = runtime
        self._ready = ready
        self._known: tuple[Plan, Explainer] | None = None
        self._one_at_a_time = threading.Lock()  # the explainer is not thread-safe; calls never come here

    def __call__(self, query: Query, body: str) -> str:
        """The explanation of the request in the query."""
        asked = _asked(query)
        if not self._ready():
            raise PageError(503, "no configuration has arrived yet")
        with self._one_at_a_time:
            try:
                found = self._explainer().explain(asked["method"], asked["url"], asked["headers"])
            except ValueError as error:
                raise PageError(400, str(error)) from None
        if asked["format"] == "text":
            from meshlib.explain.text import lines

            return "\n".join(lines(found)) + "\n"
        return json.dumps(found.to_dict(), indent=2) + "\n"

    def _explainer(self) -> Explainer:
        """The explainer of the plan in force, made once for each."""
        from meshlib.explain import Explainer

        runtime = self._runtime()
        if self._known is None or self._known[0] is not runtime.plan:
            self._known = runtime.plan, Explainer.of_runtime(runtime)
        return self._known[1]


class HealingPage:
    """`/healing`: what is held out of use now, and the last changes, newest first, each so many seconds ago."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    def __call__(self, query: Query, body: str) -> str:
        """The record, in JSON."""
        healing, now = self._runtime().healing, time.monotonic()
        out = [{"cluster": cluster, "endpoint": endpoint, "state": state}
               for (cluster, endpoint), state in healing.out().items()]  # fmt: skip
        changes = [{"seconds_ago": round(now - change.at, 3), **_without_time(change)} for change in healing.changes]
        return json.dumps({"out": out, "changes": changes[::-1]}, indent=2) + "\n"


def _without_time(change: HealingChanged) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(change).items() if name != "at"}


def _asked(query: Query) -> dict[str, Any]:
    given: dict[str, Any] = {"method": "GET", "url": "", "format": "json", "headers": []}
    for name, value in query:
        if name == "header":
            header, colon, text = value.partition(":")
            if not colon:
                raise PageError(400, f"header {value!r} is not name:value")
            given["headers"].append((header.strip(), text.strip()))
        elif name in ("method", "url", "format"):
            given[name] = value
        else:
            raise PageError(400, f"unknown parameter {name!r}: there are method, url, header and format")
    if not given["url"]:
        raise PageError(400, "url=http://service/path is wanted")
    return given
