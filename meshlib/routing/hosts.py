"""Domains to virtual hosts: exact > longest `*suffix` > longest `prefix*` > `*`, without regard to case.

Cost depends on the number of distinct wildcard lengths, not on the number of domains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from meshlib.model.report import ResourceError
from meshlib.routing.text import as_wire, ascii_lower

T = TypeVar("T")


class DomainIndex(Generic[T]):
    """Finds what belongs to an authority (host with its port, if it has one: Envoy matches the whole authority)."""

    __slots__ = ("_default", "_exact", "_prefixes", "_suffixes")

    def __init__(self, domains: Iterable[tuple[str, T]]) -> None:
        self._default: T | None = None
        self._exact: dict[str, T] = {}
        suffixes: dict[int, dict[str, T]] = {}
        prefixes: dict[int, dict[str, T]] = {}
        seen: set[str] = set()
        for given, value in domains:
            domain = ascii_lower(as_wire(given))
            if domain in seen:
                raise ResourceError("domains", f"{given!r} stands twice; a domain belongs to one virtual host")
            seen.add(domain)
            if domain == "*":
                self._default = value
            elif domain.startswith("*"):
                suffixes.setdefault(len(domain) - 1, {})[domain[1:]] = value
            elif domain.endswith("*"):
                prefixes.setdefault(len(domain) - 1, {})[domain[:-1]] = value
            else:
                self._exact[domain] = value
        self._suffixes = sorted(suffixes.items(), reverse=True)
        self._prefixes = sorted(prefixes.items(), reverse=True)

    def find(self, authority: str) -> T | None:
        """The value of the best domain, None when no domain fits. An empty authority only ever meets a lone `*`."""
        if not authority:
            return None if self._exact or self._suffixes or self._prefixes else self._default
        host = ascii_lower(authority)
        exact = self._exact.get(host)
        if exact is not None:
            return exact
        found = _longest(self._suffixes, len(host), lambda length: host[-length:])
        if found is None:
            found = _longest(self._prefixes, len(host), lambda length: host[:length])
        return self._default if found is None else found


def _longest(wildcards: list[tuple[int, dict[str, T]]], size: int, part: Callable[[int], str]) -> T | None:
    for length, table in wildcards:
        # Strictly longer: the `*` stands for at least one character, so `*.a.com` is not `.a.com`.
        if length < size and (found := table.get(part(length))) is not None:
            return found
    return None


def without_port(authority: str) -> str:
    """The authority without `:port`; the colons of a bracketed IPv6 address are no port."""
    host, colon, port = authority.rpartition(":")
    return host if colon and "]" not in port else authority
