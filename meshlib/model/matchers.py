"""What a request is compared with: the matchers of xDS v3 (`envoy.type.matcher.v3`, `envoy.config.route.v3`).

Frozen values only: `meshlib.routing.matchers` compiles them into predicates. Regular expressions are RE2 and are
checked when they are compiled, so a model that exists may still be refused by the plan with a `ResourceError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshlib.model.context_matchers import FilterStateMatcher, MetadataMatcher, TlsContextMatch
from meshlib.model.metadata import Struct, Value
from meshlib.model.strings import StringMatcher, StringMatchKind

__all__ = [
    "ALWAYS",
    "NEVER",
    "CookieMatcher",
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

PathMatchKind = Literal["path", "prefix", "path_separated_prefix", "safe_regex", "uri_template", "connect_matcher"]


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
class CookieMatcher:
    """`envoy.config.route.v3.CookieMatcher`; a cookie that is not there only matches with `invert`."""

    name: str
    match: StringMatcher
    invert: bool = False


@dataclass(frozen=True, slots=True)
class PathMatcher:
    """How a route looks at the path (without query string).

    `path` and `prefix` honour `case_sensitive`; `path_separated_prefix` matches `value` itself or `value/...`;
    `safe_regex` must match the whole path. `uri_template` is a template as `/videos/{id}/**`
    (`envoy.path.match.uri_template`). `connect_matcher` has no value: it takes CONNECT requests, whatever their path.
    """

    kind: PathMatchKind
    value: str
    case_sensitive: bool = True


@dataclass(frozen=True, slots=True)
class FractionalPercent:
    """`envoy.type.v3.FractionalPercent`: `numerator / denominator`, denominator 100, 10 000 or 1 000 000.

    With a `runtime_key` it is the default of a `RuntimeFractionalPercent`: see `resolved`.
    """

    numerator: int
    denominator: int = 100
    runtime_key: str = ""

    @property
    def fraction(self) -> float:
        """The share as a float in [0, 1]; a numerator above the denominator counts as 1."""
        return min(1.0, self.numerator / self.denominator)

    def resolved(self, runtime: Struct) -> FractionalPercent:
        """What counts where `runtime` (`Snapshot.runtime`) has the key: a whole number is a percentage, a struct is a
        FractionalPercent; anything else, as in Envoy, leaves the default.
        """
        said = runtime.get(self.runtime_key) if self.runtime_key else None
        if isinstance(said, Struct):
            return FractionalPercent(_whole(said.get("numerator")), _DENOMINATORS.get(said.get("denominator"), 100))
        if isinstance(said, float) and said >= 0 and said.is_integer():
            return FractionalPercent(min(100, int(said)))
        return self


def _whole(value: Value) -> int:
    return int(value) if isinstance(value, float) and value >= 0 else 0


_DENOMINATORS: dict[Value, int] = {"TEN_THOUSAND": 10_000, "MILLION": 1_000_000, 1.0: 10_000, 2.0: 1_000_000}


NEVER = FractionalPercent(0)
ALWAYS = FractionalPercent(100)


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """`envoy.config.route.v3.RouteMatch`: every part must match.

    `grpc` wants content-type `application/grpc` or `application/grpc+...`. What stands in `dynamic_metadata` and
    `filter_state` is looked for in the call's own (`RequestHead.metadata`, `RequestHead.filter_state`).
    """

    path: PathMatcher
    headers: tuple[HeaderMatcher, ...] = ()
    query_parameters: tuple[QueryParameterMatcher, ...] = ()
    grpc: bool = False
    runtime_fraction: FractionalPercent | None = None
    cookies: tuple[CookieMatcher, ...] = ()
    tls_context: TlsContextMatch | None = None
    dynamic_metadata: tuple[MetadataMatcher, ...] = ()
    filter_state: tuple[FilterStateMatcher, ...] = ()


@dataclass(frozen=True, slots=True)
class RegexRewrite:
    r"""`envoy.type.matcher.v3.RegexMatchAndSubstitute`: RE2 pattern, substitution with `\1` style groups."""

    pattern: str
    substitution: str
