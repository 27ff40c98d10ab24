"""What a request is compared with: the matchers of xDS v3 (`envoy.type.matcher.v3`, `envoy.config.route.v3`).

Frozen values only: `meshlib.routing.matchers` compiles them into predicates. Regular expressions are RE2 and are
checked when they are compiled, so a model that exists may still be refused by the plan with a `ResourceError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "ALWAYS",
    "NEVER",
    "FractionalPercent",
    "HeaderMatcher",
    "Int64Range",
    "PathMatchKind",
    "PathMatcher",
    "Present",
    "QueryParameterMatcher",
    "RegexRewrite",
    "RouteMatch",
    "StringMatchKind",
    "StringMatcher",
]

StringMatchKind = Literal["exact", "prefix", "suffix", "contains", "safe_regex"]
PathMatchKind = Literal["path", "prefix", "path_separated_prefix", "safe_regex"]


@dataclass(frozen=True, slots=True)
class StringMatcher:
    """`envoy.type.matcher.v3.StringMatcher`. A `safe_regex` must match the whole value (RE2 full match).

    `ignore_case` has no effect on `safe_regex`, as in Envoy.
    """

    kind: StringMatchKind
    value: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Int64Range:
    """A half-open integer range `[start, end)`; a header that is not a base-10 integer never matches."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Present:
    """Matches on presence (`present=True`) or on absence (`present=False`)."""

    present: bool = True


@dataclass(frozen=True, slots=True)
class HeaderMatcher:
    """`envoy.config.route.v3.HeaderMatcher`. `name` is lower case; pseudo headers (`:method`, ...) are allowed.

    Of several values of one header any one may match; with `invert` none may. A missing header does not match, whatever
    `invert` says, unless `treat_missing_as_empty` is set (or the test is for presence).
    """

    name: str
    match: StringMatcher | Int64Range | Present
    invert: bool = False
    treat_missing_as_empty: bool = False


@dataclass(frozen=True, slots=True)
class QueryParameterMatcher:
    """`envoy.config.route.v3.QueryParameterMatcher`; the first occurrence of the parameter counts."""

    name: str
    match: StringMatcher | Present


@dataclass(frozen=True, slots=True)
class PathMatcher:
    """How a route looks at the path (without query string).

    `path` and `prefix` honour `case_sensitive`; `path_separated_prefix` matches `value` itself or `value/...`;
    `safe_regex` must match the whole path.
    """

    kind: PathMatchKind
    value: str
    case_sensitive: bool = True


@dataclass(frozen=True, slots=True)
class FractionalPercent:
    """`envoy.type.v3.FractionalPercent`: `numerator / denominator`, denominator 100, 10 000 or 1 000 000."""

    numerator: int
    denominator: int = 100

    @property
    def fraction(self) -> float:
        """The share as a float in [0, 1]; a numerator above the denominator counts as 1."""
        return min(1.0, self.numerator / self.denominator)


NEVER = FractionalPercent(0)
ALWAYS = FractionalPercent(100)


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """`envoy.config.route.v3.RouteMatch`: every part must match.

    `grpc` wants content-type `application/grpc` or `application/grpc+...`.
    """

    path: PathMatcher
    headers: tuple[HeaderMatcher, ...] = ()
    query_parameters: tuple[QueryParameterMatcher, ...] = ()
    grpc: bool = False
    runtime_fraction: FractionalPercent | None = None


@dataclass(frozen=True, slots=True)
class RegexRewrite:
    r"""`envoy.type.matcher.v3.RegexMatchAndSubstitute`: RE2 pattern, substitution with `\1` style groups."""

    pattern: str
    substitution: str
