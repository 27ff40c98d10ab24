"""Domains to virtual hosts: exact > longest `*suffix` > longest `prefix*` > `*`, without regard to case.

Whole names by dictionary, wildcards by trie (suffixes read backwards): what a look-up costs does not depend on how many
domains there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from meshlib.model.report import ResourceError
from meshlib.routing.prefix_trie import PrefixTrie
from meshlib.routing.text import as_wire, ascii_lower

T = TypeVar("T")


class DomainIndex(Generic[T]):
    """Finds what belongs to an authority (host with its port, if it has one: Envoy matches the whole authority)."""

    __slots__ = ("_default", "_exact", "_prefixes", "_suffixes")

    def __init__(self, domains: Iterable[tuple[str, T]]) -> None:
        self._default: T | None = None
        self._exact: dict[str, T] = {}
        suffixes: dict[str, T] = {}
        prefixes: dict[str, T] = {}
        seen: set[str] = set()
        for given, value in domains:
            domain = ascii_lower(as_wire(given))
            if domain in seen:
                raise ResourceError("domains", f"{given!r} stands twice; a domain belongs to one virtual host")
            seen.add(domain)
            if domain == "*":
                self._default = value
            elif domain.startswith("*"):
                suffixes[domain[:0:-1]] = value
            elif domain.endswith("*"):
                prefixes[domain[:-1]] = value
            else:
                self._exact[domain] = value
        self._suffixes = _trie(suffixes)
        self._prefixes = _trie(prefixes)

    def find(self, authority: str) -> T | None:
        """The value of the best domain, None when no domain fits. An empty authority only ever meets a lone `*`."""
        if not authority:
            return None if self._exact or self._suffixes or self._prefixes else self._default
        host = ascii_lower(authority)
        found = self._exact.get(host)
        # Without its last character: the `*` stands for at least one, so `*.a.com` is not `.a.com`.
        if found is None and self._suffixes is not None:
            found = self._suffixes.find(host[:0:-1])
        if found is None and self._prefixes is not None:
            found = self._prefixes.find(host[:-1])
        return self._default if found is None else found


def _trie(values: dict[str, T]) -> PrefixTrie[T | None] | None:
    return PrefixTrie(values, lambda key, above: values[key], None) if values else None


def without_port(authority: str) -> str:
    """The authority without `:port`; the colons of a bracketed IPv6 address are no port."""
    host, colon, port = authority.rpartition(":")
    return host if colon and "]" not in port else authority
