"""Where in a resource a compile error is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from meshlib.model.report import ResourceError


@contextmanager
def at(path: str) -> Iterator[None]:
    """Put a field in front of the path of a `ResourceError` raised inside."""
    try:
        yield
    except ResourceError as error:
        # An index follows its list, a field its message.
        whole = path + ("" if error.path.startswith("[") or not error.path else ".") + error.path
        raise ResourceError(whole, error.reason, error.resource) from error
