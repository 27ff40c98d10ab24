"""RouteMatch compiled to predicates. Each tests one thing of a request and can say what that is."""

from __future__ import annotations

from typing import Protocol

from meshlib.model.matchers import (
    CookieMatcher,
    FractionalPercent,
    HeaderMatcher,
    Int64Range,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RouteMatch,
    StringMatcher,
)
from meshlib.model.request import RequestHead
from meshlib.routing.context_matchers import compile_context
from meshlib.routing.cookies import find_cookie
from meshlib.routing.located import at
from meshlib.routing.paths import compile_path
from meshlib.routing.query import first_parameter
from meshlib.routing.strings import StringTest, compile_string, describe_string
from meshlib.routing.text import as_wire

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_MOST_DIGITS = 4096  # Python refuses to convert much longer ones, and no integer of 64 bits is written so


class Predicate(Protocol):
    """One condition of a route."""

    def __call__(self, head: RequestHead) -> bool:
        """Whether the request meets it."""

    def describe(self) -> str:
        """The condition in words."""


class PathPredicate:
    """The path without its query. `test` takes the bare path. Only for telling why: the route index decides by it."""

    __slots__ = ("matcher", "test")

    def __init__(self, matcher: PathMatcher) -> None:
        self.matcher = matcher
        self.test = compile_path(matcher)

    def __call__(self, head: RequestHead) -> bool:
        """Whether the path fits."""
        return self.test(head.path_only)

    def describe(self) -> str:
        """`prefix '/a'`."""
        if self.matcher.kind == "connect_matcher":
            return "connect_matcher"
        return f"{self.matcher.kind} {self.matcher.value!r}{'' if self.matcher.case_sensitive else ' (any case)'}"


class HeaderPredicate:
    """A header. Of several values one must fit, or with `invert` none may (Envoy 1.40; before it joined them by `,`).

    What a missing header means is settled at compile time.
    """

    __slots__ = ("_invert", "_missing", "_name", "_test", "matcher")

    def __init__(self, matcher: HeaderMatcher) -> None:
        self.matcher = matcher
        self._name = as_wire(matcher.name)
        self._invert = matcher.invert
        self._test = _header_test(matcher.match)
        if isinstance(matcher.match, Present):
            # One that counts as empty counts as present.
            here = matcher.treat_missing_as_empty
            self._missing = (here is matcher.match.present) is not matcher.invert
        else:
            # A missing header fails even an inverted test, unless it counts as empty.
            self._missing = matcher.treat_missing_as_empty and self._test("") is not matcher.invert

    def __call__(self, head: RequestHead) -> bool:
        """Whether the header's value, or its absence, fits."""
        values = head.get_all(self._name)
        if not values:
            return self._missing
        if len(values) == 1:
            return self._test(values[0]) is not self._invert
        return any(map(self._test, values)) is not self._invert

    def describe(self) -> str:
        """`header x-a exact '1'`, with `not` in front when inverted."""
        match self.matcher.match:
            case Present(present=present):
                test = "present" if present else "absent"
            case Int64Range(start=start, end=end):
                test = f"in [{start}, {end})"
            case text:
                test = describe_string(text)
        empty = " (missing counts as empty)" if self.matcher.treat_missing_as_empty else ""
        return f"{'not ' if self.matcher.invert else ''}header {self.matcher.name} {test}{empty}"


class QueryPredicate:
    """A query parameter, its first value, not decoded."""

    __slots__ = ("_name", "_test", "matcher")

    def __init__(self, matcher: QueryParameterMatcher) -> None:
        self.matcher = matcher
        self._name = as_wire(matcher.name)
        self._test = None if isinstance(matcher.match, Present) else compile_string(matcher.match)

    def __call__(self, head: RequestHead) -> bool:
        """Whether the parameter fits."""
        value = first_parameter(head.query, self._name)
        if isinstance(self.matcher.match, Present):
            return (value is not None) is self.matcher.match.present
        return value is not None and self._test is not None and self._test(value)

    def describe(self) -> str:
        """`query parameter q exact '1'`."""
        if isinstance(self.matcher.match, Present):
            return f"query parameter {self.matcher.name} {'present' if self.matcher.match.present else 'absent'}"
        return f"query parameter {self.matcher.name} {describe_string(self.matcher.match)}"


class GrpcPredicate:
    """Content type `application/grpc` or `application/grpc+...`; `application/grpc-web` is another protocol."""

    __slots__ = ()

    def __call__(self, head: RequestHead) -> bool:
        """Whether the request is gRPC."""
        kind = head.get("content-type") or ""
        return kind.startswith("application/grpc") and (len(kind) == 16 or kind[16] == "+")

    def describe(self) -> str:
        """`gRPC content type`."""
        return "gRPC content type"


class CookiePredicate:
    """A cookie, its first value."""

    __slots__ = ("_name", "_test", "matcher")

    def __init__(self, matcher: CookieMatcher) -> None:
        self.matcher = matcher
        self._name = as_wire(matcher.name)
        self._test = compile_string(matcher.match)

    def __call__(self, head: RequestHead) -> bool:
        """Whether the cookie fits; one that is not there does not."""
        value = find_cookie(head, self._name)
        return (value is not None and self._test(value)) is not self.matcher.invert

    def describe(self) -> str:
        """`cookie a exact '1'`, with `not` in front when inverted."""
        return (
            f"{'not ' if self.matcher.invert else ''}cookie {self.matcher.name} {describe_string(self.matcher.match)}"
        )


class ConnectPredicate:
    """The method of a `connect_matcher`."""

    __slots__ = ()

    def __call__(self, head: RequestHead) -> bool:
        """Whether the request is a CONNECT."""
        return head.method == "CONNECT"

    def describe(self) -> str:
        """`method CONNECT`."""
        return "method CONNECT"


class FractionTest:
    """A share of all requests. Takes the request's random sample, because every fraction of one request shares it."""

    __slots__ = ("_share", "percent")

    def __init__(self, percent: FractionalPercent) -> None:
        self.percent = percent
        self._share = percent.fraction

    def __call__(self, sample: float) -> bool:
        """Whether a sample in [0, 1) falls into the share."""
        return sample < self._share

    def describe(self) -> str:
        """`runtime fraction 5/100`."""
        return f"runtime fraction {self.percent.numerator}/{self.percent.denominator}"


def compile_match(match: RouteMatch) -> tuple[Predicate, ...]:
    """Every condition that depends on the call alone, the path first. `ResourceError` when one cannot be compiled.

    `runtime_fraction` also needs chance: see `FractionTest`.
    """
    with at("path"):
        path = PathPredicate(match.path)
    return (path, *compile_conditions(match))


def compile_conditions(match: RouteMatch) -> tuple[Predicate, ...]:
    """The same without the path."""
    predicates: list[Predicate] = []
    if match.path.kind == "connect_matcher":
        predicates.append(ConnectPredicate())
    if match.grpc:
        predicates.append(GrpcPredicate())
    for index, header in enumerate(match.headers):
        with at(f"headers[{index}]"):
            predicates.append(HeaderPredicate(header))
    for index, parameter in enumerate(match.query_parameters):
        with at(f"query_parameters[{index}]"):
            predicates.append(QueryPredicate(parameter))
    for index, cookie in enumerate(match.cookies):
        with at(f"cookies[{index}]"):
            predicates.append(CookiePredicate(cookie))
    predicates += compile_context(match)
    return tuple(predicates)


def _header_test(match: StringMatcher | Int64Range | Present) -> StringTest:
    if isinstance(match, StringMatcher):
        return compile_string(match)
    if isinstance(match, Present):
        present = match.present
        return lambda value: present
    start, end = match.start, match.end

    def in_range(value: str) -> bool:
        number = parse_int64(value)
        return number is not None and start <= number < end

    return in_range


def parse_int64(text: str) -> int | None:
    """A base-10 integer of 64 bits with optional sign and surrounding white space; None for anything else."""
    bare = text.strip(" \t\n\v\f\r")
    digits = bare[1:] if bare[:1] in ("+", "-") else bare
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _MOST_DIGITS:
        return None
    number = int(bare)
    return number if INT64_MIN <= number <= INT64_MAX else None
