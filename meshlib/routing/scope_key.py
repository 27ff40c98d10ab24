"""The scope key of a request, as Envoy's `ScopeKeyBuilder` makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshlib.model.request import RequestHead
from meshlib.model.scoped_routes import HeaderFragment

ScopeKey = Callable[[RequestHead], tuple[str, ...] | None]
_Fragment = Callable[[RequestHead], str | None]


def compile_scope_key(fragments: Sequence[HeaderFragment]) -> ScopeKey:
    """The key of a request; None where a fragment is not in it, and so no scope is the request's."""
    tests = tuple(_fragment(fragment) for fragment in fragments)

    def key(head: RequestHead) -> tuple[str, ...] | None:
        parts = []
        for test in tests:
            part = test(head)
            if part is None:
                return None
            parts.append(part)
        return tuple(parts)

    return key


def _fragment(fragment: HeaderFragment) -> _Fragment:
    name, index = fragment.name.lower(), fragment.index

    def elements(head: RequestHead) -> list[str]:
        values = head.get_all(name)[:1]  # the header is the caller's: only its first value is looked at
        return values[0].split(fragment.separator) if values and fragment.separator else values

    def by_index(head: RequestHead) -> str | None:
        found = elements(head)
        return found[index] if index is not None and index < len(found) else None

    def by_key(head: RequestHead) -> str | None:
        pairs = (element.partition(fragment.key_separator) for element in elements(head))
        return next((value for key, _, value in pairs if key == fragment.key), None)

    return by_key if index is None else by_index
