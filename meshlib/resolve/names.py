"""What is known of names, and when each is to be asked for next. Pure: no thread, clock or socket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from meshlib.model.dns import Dns

MIN_TTL = 1.0
"""Seconds: an answer that says it is good for no time is asked for again after this."""


class Rng(Protocol):
    """The one thing asked of a random number generator."""

    def random(self) -> float:
        """A float in [0, 1)."""


class Question(NamedTuple):
    """A name and how to resolve it. Clusters that ask the same share the answer."""

    name: str
    dns: Dns


@dataclass(frozen=True, slots=True)
class Answer:
    """Addresses in numbers, in the server's order; none: there is no such name, or it has none of the families wanted.
    `ttl`: for how many seconds it is good, None when whoever resolves does not say.
    """

    addresses: tuple[str, ...]
    ttl: float | None = None


class _Name:
    __slots__ = ("addresses", "answered", "asking", "due", "error", "failures", "some")

    def __init__(self, due: float) -> None:
        self.addresses: tuple[str, ...] | None = None  # of the last answer
        self.some: tuple[str, ...] | None = None  # of the last answer that had any
        self.answered = False
        self.asking = False
        self.due = due
        self.error = ""
        self.failures = 0


class Names:
    """The names of the clusters in force. A failure keeps the addresses known."""

    def __init__(self) -> None:
        self._names: dict[Question, _Name] = {}

    def follow(self, questions: Iterable[Question], now: float) -> None:
        """From now on these: new ones are due at once, those that are not among them are forgotten."""
        self._names = {question: self._names.get(question) or _Name(now) for question in questions}

    def restart(self, now: float) -> None:
        """Whoever was asking is gone: everything is due, and what is known stays."""
        for name in self._names.values():
            name.asking, name.due = False, now

    def take_due(self, now: float, at_most: int) -> list[Question]:
        """What to ask for now; it is not due again before it has been answered or has failed."""
        due = [question for question, name in self._names.items() if not name.asking and name.due <= now][:at_most]
        for question in due:
            self._names[question].asking = True
        return due

    @property
    def next_due(self) -> float | None:
        """When the next one is due; None while there is nothing to ask for, or everything is being asked for."""
        return min((name.due for name in self._names.values() if not name.asking), default=None)

    def answered(self, question: Question, answer: Answer, now: float, rng: Rng) -> bool:
        """An answer came. Whether it says anything new; a first one does."""
        name = self._names.get(question)
        if name is None:
            return False
        changed = not name.answered or name.addresses != answer.addresses
        name.asking, name.answered, name.failures, name.error = False, True, 0, ""
        name.addresses, name.some = answer.addresses, answer.addresses or name.some
        dns = question.dns
        wait = dns.refresh_rate
        if dns.respect_ttl and answer.ttl is not None and answer.addresses:
            wait = max(MIN_TTL, answer.ttl)
        name.due = now + wait + dns.jitter * rng.random()
        return changed

    def failed(self, question: Question, why: str, now: float, rng: Rng) -> bool:
        """There was no answer. Whether that is news: the first of a name, which calls may be waiting for."""
        name = self._names.get(question)
        if name is None:
            return False
        changed = not name.answered
        name.asking, name.answered, name.error = False, True, why
        name.failures += 1
        name.due = now + _after_failure(question.dns, name.failures, rng) + question.dns.jitter * rng.random()
        return changed

    def addresses(self, question: Question, *, some: bool = False) -> tuple[str, ...] | None:
        """Those of the last answer, which may have none; with `some` of the last one that had. None before there was
        such an answer.
        """
        name = self._names.get(question)
        if name is None:
            return None
        return name.some if some else name.addresses

    def is_awaited(self, question: Question) -> bool:
        """Whether neither an answer nor a failure has come yet."""
        name = self._names.get(question)
        return name is not None and not name.answered

    def is_followed(self, question: Question) -> bool:
        """Whether it is among what is asked for."""
        return question in self._names

    @property
    def awaited(self) -> tuple[str, ...]:
        """The names that are."""
        return tuple(question.name for question, name in self._names.items() if not name.answered)

    def errors(self) -> dict[str, str]:
        """Why, by the name, for those whose last look-up failed."""
        return {question.name: name.error for question, name in self._names.items() if name.error}


def _after_failure(dns: Dns, failures: int, rng: Rng) -> float:
    """Exponential with full jitter, as Envoy's back-off: anything up to base x 2^failures, but not above the most."""
    rate = dns.failure_refresh_rate
    if rate is None:
        return dns.refresh_rate
    ceiling = min(rate.max_interval, rate.base_interval * 2.0 ** min(failures, 32))
    return max(0.001, ceiling * rng.random()) if failures > 1 else max(0.001, rate.base_interval * rng.random())
