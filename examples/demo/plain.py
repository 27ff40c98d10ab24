"""The story in plain lines, for pipes and CI; and the words both screens use."""

from __future__ import annotations

import time
from collections.abc import Mapping

from examples.demo.promises import Promise
from meshlib.engine.events import BreakerChanged, EndpointEjected, EndpointReturned, Event, PlanChanged, RateLimited

REFUSALS_TOLD_AFTER = 1.0  # seconds of quiet; a limit refuses dozens of requests, one line says it


class EventWords:
    """An event in words; None for one that is not worth a line (again). `names` are the instances by address."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._last_refusal = float("-inf")

    def of(self, event: Event) -> str | None:
        """The line for an event."""
        match event:
            case EndpointEjected(_, cluster, endpoint, reason, seconds):
                return f"ejected: {self._name(endpoint)} from {cluster} for {seconds:.1f} s ({reason})"
            case EndpointReturned(_, cluster, endpoint):
                return f"returned: {self._name(endpoint)} to {cluster}"
            case BreakerChanged(_, name, old, new, reason):
                return f"breaker of {name}: {old} → {new} ({reason})"
            case RateLimited(at, name, path):
                quiet, self._last_refusal = at - self._last_refusal, at
                return f"limit {name}: {path} is refused" if quiet > REFUSALS_TOLD_AFTER else None
            case PlanChanged():
                return None  # the edits themselves are told, with their time to effect
        return None

    def _name(self, address: str) -> str:
        return self._names.get(address, address)


class PlainScreen:
    """One line for each thing that happens."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._words = EventWords(names)
        self._began = time.monotonic()

    def act(self, title: str) -> None:
        """A heading."""
        print(f"\n{title}", flush=True)

    def say(self, text: str) -> None:
        """A line with the time."""
        print(f"  {time.monotonic() - self._began:5.1f} s  {text}", flush=True)

    def event(self, event: Event) -> None:
        """A line, unless it would be one of many."""
        if (text := self._words.of(event)) is not None:
            self.say(text)

    def promise(self, promise: Promise) -> None:
        """Kept or broken, with the evidence."""
        print(f"  {'kept  ' if promise.kept else 'BROKEN'}   {promise.text}: {promise.measured}", flush=True)
