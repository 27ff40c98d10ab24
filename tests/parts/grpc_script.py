"""What a test backend does with a call, said once for the sync and the asyncio server."""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

BACKEND = "x-backend"


@dataclass(frozen=True, slots=True)
class Part:
    """One call's part: the script that holds for it and which arrival of its key it is."""

    script: Any
    arrival: int
    text: str

    @property
    def status(self) -> int:
        statuses = self.script.statuses
        return statuses[min(self.arrival, len(statuses)) - 1] if statuses else 0

    @property
    def answers(self) -> int:
        """How many answers a server stream gives."""
        return self.script.answers or (0 if self.status or self.script.die else 1)


class Book:
    """What a backend has seen and how it stands; safe from all threads."""

    def __init__(self, name: str, messages: Any) -> None:
        self.name = name
        self._messages = messages
        self.empty = messages.Ask()
        self._lock = threading.Lock()
        self._standing = messages.Script()
        self._clear()

    def _clear(self) -> None:
        self.count = self.active = self.cancelled = 0
        self.arrivals: Counter[str] = Counter()

    def reset(self) -> None:
        with self._lock:
            active = self.active
            self._standing = self._messages.Script()
            self._clear()
            self.active = active

    def behave(self, script: Any) -> None:
        self._standing = script

    def arrive(self, ask: Any) -> Part:
        """A call has come, with its first request."""
        with self._lock:
            self.count += 1
            self.arrivals[ask.key] += 1
            script = ask.script if ask.HasField("script") and ask.script.ByteSize() else self._standing
            return Part(script, self.arrivals[ask.key], ask.text)

    def enter(self) -> None:
        with self._lock:
            self.active += 1

    def leave(self, cancelled: bool) -> None:
        with self._lock:
            self.active -= 1
            self.cancelled += cancelled

    def answer(self, part: Part, context: Any, number: int, heard: int) -> Any:
        first = number == 1
        remaining = context.time_remaining() if first else None
        bounded = remaining is not None and remaining < 1e8  # sync servers tell "none" by a very large number
        return self._messages.Answer(
            backend=self.name,
            text=part.text,
            number=number,
            arrival=part.arrival,
            metadata=[self._pair(*pair) for pair in context.invocation_metadata()] if first else [],
            remaining=remaining if bounded else -1,
            heard=heard,
            payload=b"x" * part.script.size,
        )

    def state(self) -> Any:
        with self._lock:
            return self._messages.State(
                backend=self.name,
                count=self.count,
                active=self.active,
                cancelled=self.cancelled,
                arrivals=dict(self.arrivals),
            )

    def _pair(self, name: str, value: str | bytes) -> Any:
        return self._messages.Pair(name=name, value=value if isinstance(value, bytes) else value.encode())

    def initial(self, part: Part) -> list[tuple[str, str | bytes]]:
        return [(BACKEND, self.name), *_metadata(part.script.initial)]

    def trailing(self, part: Part) -> list[tuple[str, str | bytes]]:
        return [(BACKEND, self.name), *_metadata(part.script.trailing)]


def die() -> None:
    """As SIGKILL would: nothing is flushed, nothing said."""
    os._exit(9)


def _metadata(pairs: Any) -> list[tuple[str, str | bytes]]:
    return [(pair.name, pair.value if pair.name.endswith("-bin") else pair.value.decode()) for pair in pairs]
