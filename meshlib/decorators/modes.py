"""A mode for tests: decorators without their waits, and without what one test would leave behind for the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mode:
    """`attempts`: at most so many of a retried call (None: as it says). `waits`: back-off takes its time. `protects`:
    breakers, limits and bulkheads refuse.
    """

    attempts: int | None = None
    waits: bool = True
    protects: bool = True


_mode = Mode()


def mode() -> Mode:
    """The mode in force, in all threads."""
    return _mode


@contextlib.contextmanager
def for_tests(*, attempts: int | None = 1, waits: bool = False, protects: bool = False) -> Iterator[None]:
    """For a test, or as a fixture for all of them: decorated functions are called once, nothing waits, and nothing is
    refused. `attempts=3` or None leaves retries on, still without waiting; `protects=True` leaves circuit breakers,
    rate limits and bulkheads on. Timeouts and fallbacks are as ever. In force for all threads; nests.

    Raises ValueError for attempts below 1.
    """
    global _mode  # noqa: PLW0603  that tests and the code they test are in different contexts is what it is for
    if attempts is not None and attempts < 1:
        raise ValueError(f"attempts={attempts}: a function is called at least once")
    before, _mode = _mode, Mode(attempts, waits, protects)
    try:
        yield
    finally:
        _mode = before
