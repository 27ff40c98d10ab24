"""Matchers of what a call carries beside its request: dynamic metadata, filter state, the caller's TLS."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Protocol

from meshlib.model.context_matchers import (
    AnyOf,
    AnyValue,
    DoubleMatch,
    FilterStateMatcher,
    IpRanges,
    ListHas,
    MetadataMatcher,
    TlsContextMatch,
    ValueMatcher,
)
from meshlib.model.matchers import RouteMatch
from meshlib.model.metadata import Metadata, Struct, Value
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.model.strings import StringMatcher
from meshlib.routing.located import at
from meshlib.routing.strings import StringTest, compile_string, describe_string

ValueTest = Callable[[Value], bool]


class ContextPredicate(Protocol):
    """One condition on the call."""

    def __call__(self, head: RequestHead) -> bool:
        """Whether the call meets it."""

    def describe(self) -> str:
        """The condition in words."""


class MetadataPredicate:
    """A value of the call's dynamic metadata."""

    __slots__ = ("_test", "matcher")

    def __init__(self, matcher: MetadataMatcher) -> None:
        self.matcher = matcher
        self._test = compile_value(matcher.value)

    def __call__(self, head: RequestHead) -> bool:
        """Whether the value fits; one that is not there does not."""
        found, value = _below(head.metadata, self.matcher)
        return (found and self._test(value)) is not self.matcher.invert

    def describe(self) -> str:
        """`dynamic metadata envoy.lb/version`, with `not` in front when inverted."""
        where = "/".join((self.matcher.filter, *self.matcher.path))
        return f"{'not ' if self.matcher.invert else ''}dynamic metadata {where}"


class FilterStatePredicate:
    """An object of the call's filter state."""

    __slots__ = ("_test", "matcher")

    def __init__(self, matcher: FilterStateMatcher) -> None:
        self.matcher = matcher
        match = matcher.match
        self._test = compile_string(match) if isinstance(match, StringMatcher) else compile_ranges(match)

    def __call__(self, head: RequestHead) -> bool:
        """Whether the object is there and fits."""
        value = head.filter_state.get(self.matcher.key)
        return value is not None and self._test(value)

    def describe(self) -> str:
        """`filter state user exact 'a'`."""
        match = self.matcher.match
        if isinstance(match, StringMatcher):
            return f"filter state {self.matcher.key} {describe_string(match)}"
        return f"filter state {self.matcher.key} {'not ' if match.invert else ''}in {', '.join(match.ranges)}"


class TlsContextPredicate:
    """Whether the caller showed a certificate. It is this process, which shows none: decided when it is compiled."""

    __slots__ = ("_holds", "matcher")

    def __init__(self, matcher: TlsContextMatch) -> None:
        self.matcher = matcher
        self._holds = not matcher.presented and not matcher.validated

    def __call__(self, head: RequestHead) -> bool:
        """Whether the route wants no certificate."""
        return self._holds

    def describe(self) -> str:
        """`tls_context: the caller is inside the process and presents no certificate`."""
        return "tls_context: the caller is inside the process and presents no certificate"


def compile_context(match: RouteMatch) -> Iterator[ContextPredicate]:
    """The conditions of a route on the call. Raises `ResourceError` for what cannot be compiled."""
    if match.tls_context is not None:
        yield TlsContextPredicate(match.tls_context)
    for index, metadata in enumerate(match.dynamic_metadata):
        with at(f"dynamic_metadata[{index}]"):
            yield MetadataPredicate(metadata)
    for index, state in enumerate(match.filter_state):
        with at(f"filter_state[{index}]"):
            yield FilterStatePredicate(state)


def compile_value(matcher: ValueMatcher) -> ValueTest:
    """The test of a `ValueMatcher`."""
    match matcher:
        case None | bool():
            return lambda value: value is matcher
        case StringMatcher():
            return _of_text(compile_string(matcher))
        case DoubleMatch(start=start, end=None):
            return lambda value: _is_number(value) and value == start
        case DoubleMatch(start=start, end=end):
            return lambda value: _is_number(value) and start <= value < end  # type: ignore[operator]
        case AnyValue(present=present):
            return lambda value: present
        case ListHas(one_of=item):
            test = compile_value(item)
            return lambda value: isinstance(value, tuple) and any(map(test, value))
        case AnyOf(matchers=matchers):
            tests = [compile_value(each) for each in matchers]
            return lambda value: any(test(value) for test in tests)


def _of_text(test: StringTest) -> ValueTest:
    return lambda value: isinstance(value, str) and test(value)


def _is_number(value: Value) -> bool:
    return isinstance(value, float)


def _below(metadata: Metadata, matcher: MetadataMatcher) -> tuple[bool, Value]:
    """Whether there is a value at the matcher's path, and which."""
    value: Value = metadata.namespace(matcher.filter)
    for key in matcher.path:
        if not isinstance(value, Struct):
            return False, None
        found = next((item for item in value.items if item[0] == key), None)
        if found is None:
            return False, None
        value = found[1]
    return True, value


def compile_ranges(matcher: IpRanges) -> StringTest:
    """Whether a text is an address in one of the ranges, or with `invert` in none."""
    try:
        networks = [ipaddress.ip_network(each, strict=False) for each in matcher.ranges]
    except ValueError as error:
        raise ResourceError("address_match.ranges", str(error)) from None

    def test(value: str) -> bool:
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        return any(address in network for network in networks) is not matcher.invert

    return test
