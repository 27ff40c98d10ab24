"""Header mutations of shares, routes, virtual hosts and route configurations (Envoy's `HeaderParser`).

Within one level: removals, then every value is made from what is left, then overwrites, then additions. Levels follow
one another, so that with the default order the route configuration has the last word, and with
`most_specific_header_mutations_wins` the route.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.routing.formatters import FirstValue, Format, compile_format
from meshlib.routing.located import at
from meshlib.routing.text import wire_bytes

Headers = list[tuple[bytes, bytes]]
Mutate = Callable[[Headers, RequestHead], Headers]
Target = Literal["request", "response"]


def compile_mutations(
    *levels: HeaderMutations, most_specific_wins: bool = False, target: Target = "request"
) -> Mutate | None:
    """One function for all levels, None when none of them does anything.

    `levels` go from the most specific to the widest: `[share,] route, virtual host, route configuration`. A share is
    always applied first, whatever `most_specific_wins` says, as in Envoy. `target` says what the headers are:
    formatters read request headers, which for a request are those mutated so far.

    Raises `ResourceError` for `:pseudo` and `host` headers (rewrites exist for those) and for unknown formatters.
    """
    wide = levels[-3:][::-1] if most_specific_wins else levels[-3:]
    steps = [_Level(level, target) for level in (*levels[:-3], *wide) if level]
    if not steps:
        return None
    if len(steps) == 1:
        return steps[0]

    def mutate(headers: Headers, head: RequestHead) -> Headers:
        for step in steps:
            headers = step(headers, head)
        return headers

    return mutate


class _Level:
    __slots__ = ("_add", "_needs_names", "_remove", "_target")

    def __init__(self, mutations: HeaderMutations, target: Target) -> None:
        self._target = target
        self._remove = frozenset(_name(f"headers_to_remove[{i}]", name) for i, name in enumerate(mutations.remove))
        self._add = tuple(_Addition(i, option) for i, option in enumerate(mutations.add))
        self._needs_names = any(addition.action != "APPEND_IF_EXISTS_OR_ADD" for addition in self._add)

    def __call__(self, headers: Headers, head: RequestHead) -> Headers:
        if self._remove:
            headers = [pair for pair in headers if pair[0].lower() not in self._remove]
        names = frozenset(pair[0].lower() for pair in headers) if self._needs_names else frozenset()
        first_value = _reader(headers if self._target == "request" else head.headers, head)
        overwrites: dict[bytes, bytes] = {}
        additions: Headers = []
        for addition in self._add:
            value = addition.value if isinstance(addition.value, bytes) else wire_bytes(addition.value(first_value))
            if not value and not addition.keep_empty:
                continue
            if addition.applies(addition.name in names):
                if addition.overwrites:
                    overwrites[addition.name] = value
                else:
                    additions.append((addition.name, value))
        if overwrites:
            headers = [pair for pair in headers if pair[0].lower() not in overwrites]
        return [*headers, *overwrites.items(), *additions]


class _Addition:
    __slots__ = ("action", "keep_empty", "name", "overwrites", "value")

    def __init__(self, index: int, option: HeaderValueOption) -> None:
        where = f"headers_to_add[{index}]"
        self.name = _name(where, option.name)
        self.action = option.append_action
        self.overwrites = option.append_action.startswith("OVERWRITE")
        self.keep_empty = option.keep_empty_value
        with at(where):
            made: str | Format = compile_format(option.value)
        self.value: bytes | Format = wire_bytes(made) if isinstance(made, str) else made

    def applies(self, exists: bool) -> bool:
        """Whether the action wants to act on a header that exists, or does not."""
        if self.action == "ADD_IF_ABSENT":
            return not exists
        return exists or self.action != "OVERWRITE_IF_EXISTS"


def _name(where: str, name: str) -> bytes:
    lower = name.lower()
    if lower.startswith(":") or lower == "host":
        raise ResourceError(where, f"{name!r} cannot be changed here; use the route's path and host rewrites")
    return lower.encode()


def _reader(headers: Sequence[tuple[bytes, bytes]], head: RequestHead) -> FirstValue:
    """First values of request headers; the index is only built when something asks."""
    view: RequestHead | None = None

    def first_value(name: str) -> str | None:
        nonlocal view
        if view is None:
            view = RequestHead(head.method, head.scheme, head.authority, head.path, headers)
        return next(iter(view.get_all(name)), None)

    return first_value
