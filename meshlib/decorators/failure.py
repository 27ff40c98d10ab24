"""What a fallback function may know of the call it stands in for."""

from __future__ import annotations

from contextvars import ContextVar

failed: ContextVar[BaseException | None] = ContextVar("meshlib_failed", default=None)


def current_failure() -> BaseException | None:
    """Inside a fallback function, the exception it is called for; None elsewhere."""
    return failed.get()
