"""Heads of requests that filters have told something of: dynamic metadata, beside what the request brought."""

from __future__ import annotations

from functools import cache
from typing import Any

from meshlib.model.metadata import Metadata, Struct
from meshlib.model.request import RawHeaders, RequestHead


def with_metadata(head: RequestHead, namespace: str, said: Struct) -> RequestHead:
    """The same request, of whose metadata the namespace is now `said`; whoever reads the head later sees it."""
    names = dict(head.metadata.namespaces) | {namespace: said}
    return _carrying(
        head.like(head.path, head.headers), Metadata(tuple(sorted(names.items(), key=lambda item: item[0])))
    )


def _carrying(head: Any, metadata: Metadata) -> RequestHead:
    base: Any = type(head)
    kind = _kind(base)
    made = kind.__new__(kind)
    for slot in _slots(base):
        setattr(made, slot, getattr(head, slot))
    made.told = metadata
    found: RequestHead = made
    return found


@cache
def _kind(base: Any) -> Any:
    """The class of heads that are like `base`, and carry their metadata themselves."""

    def metadata(self: Any) -> Metadata:
        found: Metadata = self.told
        return found

    def like(self: Any, path: str, headers: RawHeaders) -> RequestHead:
        return _carrying(_plain(self).like(path, headers), self.told)

    def _plain(self: Any) -> Any:
        plain: Any = base.__new__(base)
        for slot in _slots(base):
            setattr(plain, slot, getattr(self, slot))
        return plain

    body = {"__slots__": ("told",), "metadata": property(metadata), "like": like}
    return type(f"{base.__name__}WithMetadata", (base,), body)


@cache
def _slots(kind: Any) -> tuple[str, ...]:
    return tuple(slot for each in kind.__mro__ for slot in getattr(each, "__slots__", ()))
