"""What objects say by host: the very host goes before the longest wildcard that covers it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from meshlib.sources.istio.names import matches

T = TypeVar("T")


class HostIndex(Generic[T]):
    """Values by host or wildcard, each in the order they came in. Wildcards are few: they are tried in turn."""

    def __init__(self, items: Iterable[tuple[str, T]]) -> None:
        self._named: dict[str, list[T]] = {}
        for host, value in items:
            self._named.setdefault(host, []).append(value)
        self._wildcards = sorted((host for host in self._named if host.startswith("*")), key=len, reverse=True)

    def of(self, host: str) -> tuple[T, ...]:
        """The values of the most specific host that speaks for this one; none if there is none."""
        if host not in self._named:
            host = next((pattern for pattern in self._wildcards if matches(pattern, host)), host)
        return tuple(self._named.get(host, ()))


def is_covered(pattern: str, hosts: set[str]) -> bool:
    """Whether a host, or a wildcard, speaks for one of them."""
    return pattern in hosts or (pattern.startswith("*") and any(matches(pattern, host) for host in hosts))
