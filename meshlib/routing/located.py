"""Where in a resource a compile error is."""

from __future__ import annotations

from types import TracebackType

from meshlib.model.report import ResourceError


class _At:
    """A class rather than a generator: there are several for every route, and tables have thousands of routes."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ResourceError):
            # An index follows its list, a field its message.
            whole = self._path + ("" if error.path.startswith("[") or not error.path else ".") + error.path
            raise ResourceError(whole, error.reason, error.resource) from error


def at(path: str) -> _At:
    """Put a field in front of the path of a `ResourceError` raised inside."""
    return _At(path)
