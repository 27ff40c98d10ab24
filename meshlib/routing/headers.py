"""Header mutations of shares, routes, virtual hosts and route configurations (Envoy's `HeaderParser`).

Within one level: removals, then every value is made from what is left, then overwrites, then additions. Levels follow
one another, so that with the default order the route configuration has the last word, and with
`most_specific_header_mutations_wins` the route.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.routing.facts import CallFacts, Scene
from meshlib.routing.formatters import Format, compile_format
from meshlib.routing.located import at
from meshlib.routing.text import wire_bytes

Headers = list[tuple[bytes, bytes]]
MakeFacts = Callable[[], CallFacts]
Target = Literal["request", "response"]


class Mutate(Protocol):
    """Gives the headers changed. `head` is the request's; `facts` makes what else is known of the call, and is only
    asked where an operator wants it.
    """

    def __call__(self, headers: Headers, head: RequestHead, facts: MakeFacts | None = None, /) -> Headers:
        """The headers after the change; the list given stays as it is."""


def compile_mutations(
    *levels: HeaderMutations, most_specific_wins: bool = False, target: Target = "request"
) -> Mutate | None:
    """One function for all levels, None when none of them does anything.

    `levels` go from the most specific to the widest: `[share,] route, virtual host, route configuration`. A share is
    always applied first, whatever `most_specific_wins` says, as in Envoy. `target` says what the headers are:
    operators read request headers, which for a request are those mutated so far.

    Raises `ResourceError` for `:pseudo` and `host` headers (rewrites exist for those) and for unknown operators.
    """
    wide = levels[-3:][::-1] if most_specific_wins else levels[-3:]
    return in_turn(*(_Level(level, target) for level in (*levels[:-3], *wide) if level))


def in_turn(*given: Mutate | None) -> Mutate | None:
    """One after the other; None when there is none."""
    steps = [step for step in given if step is not None]
    if len(steps) <= 1:
        return steps[0] if steps else None

    def mutate(headers: Headers, head: RequestHead, facts: MakeFacts | None = None, /) -> Headers:
        for step in steps:
            headers = step(headers, head, facts)
        return headers

    return mutate


def scene_of(target: Target, headers: Headers, head: RequestHead, facts: MakeFacts | None) -> Scene:
    """What operators see while headers of that kind are changed."""
    if target == "request":
        return Scene(head, headers, (), facts)
    return Scene(head, head.headers, headers, facts)


class _Level:
    __slots__ = ("_add", "_needs_names", "_needs_scene", "_remove", "_target")

    def __init__(self, mutations: HeaderMutations, target: Target) -> None:
        self._target = target
        self._remove = frozenset(
            header_name(f"headers_to_remove[{i}]", name) for i, name in enumerate(mutations.remove)
        )
        self._add = tuple(Addition(i, option) for i, option in enumerate(mutations.add))
        self._needs_names = any(addition.action != "APPEND_IF_EXISTS_OR_ADD" for addition in self._add)
        self._needs_scene = any(not isinstance(addition.value, bytes) for addition in self._add)

    def __call__(self, headers: Headers, head: RequestHead, facts: MakeFacts | None = None, /) -> Headers:
        if self._remove:
            headers = [pair for pair in headers if pair[0].lower() not in self._remove]
        names = frozenset(pair[0].lower() for pair in headers) if self._needs_names else frozenset()
        scene = scene_of(self._target, headers, head, facts) if self._needs_scene else None
        overwrites: dict[bytes, bytes] = {}
        additions: Headers = []
        for addition in self._add:
            value = addition.made(scene)
            if not value and not addition.keep_empty:
                continue
            if scene is not None and self._target == "response" and _ends_the_line(value):
                continue  # what a request says, decoded (%QUERY_PARAM%): in a response it would make headers of its own
            if addition.applies(addition.name in names):
                if addition.overwrites:
                    overwrites[addition.name] = value
                else:
                    additions.append((addition.name, value))
        if overwrites:
            headers = [pair for pair in headers if pair[0].lower() not in overwrites]
        return [*headers, *overwrites.items(), *additions]


def _ends_the_line(value: bytes) -> bool:
    return b"\n" in value or b"\r" in value or b"\0" in value


class Addition:
    """A header to add, compiled."""

    __slots__ = ("action", "keep_empty", "name", "overwrites", "value")

    def __init__(self, index: int, option: HeaderValueOption) -> None:
        where = f"headers_to_add[{index}]"
        self.name = header_name(where, option.name)
        self.action = option.append_action
        self.overwrites = option.append_action.startswith("OVERWRITE")
        self.keep_empty = option.keep_empty_value
        with at(where):
            made: str | Format = compile_format(option.value)
        self.value: bytes | Format = wire_bytes(made) if isinstance(made, str) else made

    def made(self, scene: Scene | None) -> bytes:
        """The value; without operators it needs no scene."""
        value = self.value
        if isinstance(value, bytes):
            return value
        return b"" if scene is None else wire_bytes(value(scene))

    def applies(self, exists: bool) -> bool:
        """Whether the action wants to act on a header that exists, or does not."""
        if self.action == "ADD_IF_ABSENT":
            return not exists
        return exists or self.action != "OVERWRITE_IF_EXISTS"


def header_name(where: str, name: str) -> bytes:
    """The name in lower case; `ResourceError` for one that may not be changed."""
    lower = name.lower()
    if lower.startswith(":") or lower == "host":
        raise ResourceError(where, f"{name!r} cannot be changed here; use the route's path and host rewrites")
    return lower.encode()
