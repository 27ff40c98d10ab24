"""What a route case can expect, each a comparison of one fact of the explanation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from meshlib.explain.explanation import Explanation
from meshlib.model.matchers import HeaderMatcher, Present, StringMatcher, StringMatchKind
from meshlib.model.request import RequestHead
from meshlib.routing.matchers import HeaderPredicate

HEADER_CHECKS = {"request_headers": "request", "response_headers": "response"}
_STRING_KINDS: tuple[StringMatchKind, ...] = ("exact", "prefix", "suffix", "contains", "safe_regex")
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?s?")


class Check(Protocol):
    """One expectation."""

    def failure(self, result: Explanation) -> str:
        """What is different, in words; empty when it is as expected."""


@dataclass(frozen=True, slots=True)
class FactCheck:
    """A fact that must be equal to what is wanted. `read` takes it from the explanation; "" and None are the same."""

    name: str
    wanted: Any
    read: Callable[[Explanation], Any]

    def failure(self, result: Explanation) -> str:
        """`cluster: wanted 'a', got 'b'`."""
        got = self.read(result)
        if got == self.wanted or (not got and not self.wanted):
            return ""
        return f"{self.name}: wanted {_shown(self.wanted)}, got {_shown(got)}"


@dataclass(frozen=True, slots=True)
class ClusterCheck:
    """The cluster the request goes to, "" for none. Where a route draws among several, chance must be settled."""

    wanted: str

    def failure(self, result: Explanation) -> str:
        """`cluster: wanted 'a', got 'b'`."""
        if result.by_chance:
            shares = ", ".join(f"{share['weight']} {share['cluster']}" for share in result.weights)
            return f"cluster: the route draws among {shares}: give the case a random_value, or expect weights"
        return FactCheck("cluster", self.wanted, lambda said: said.cluster).failure(result)


@dataclass(frozen=True, slots=True)
class RouteCheck:
    """The route, by its label (`virtual host/name`), its name, or its index where it has no name."""

    wanted: str

    def failure(self, result: Explanation) -> str:
        """`route: wanted 'a', got 'b'`."""
        label = result.route or ""
        if self.wanted in (label, label.removeprefix(f"{result.virtual_host}/"), str(result.route_index)):
            return ""
        return f"route: wanted {_shown(self.wanted)}, got {_shown(label)}"


@dataclass(frozen=True, slots=True)
class HeaderCheck:
    """A header of the request as the upstream sees it, or of the response as the caller sees it."""

    of: str
    predicate: HeaderPredicate

    def failure(self, result: Explanation) -> str:
        """`request header x-a exact '1': got '2'`."""
        pairs = result.headers if self.of == "request" else result.response_headers
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        head = RequestHead(result.method, "http", result.authority or "", result.path or "", raw)
        if self.predicate(head):
            return ""
        got = head.get_all(self.predicate.matcher.name)
        return f"{self.of} {self.predicate.describe()}: got {', '.join(map(repr, got)) or 'none'}"

    @classmethod
    def of_value(cls, of: str, name: str, wanted: Any) -> Self:
        """A header by its value: a text, `null` where it must be missing, or `{prefix: ...}` and its like."""
        match wanted:
            case None:
                test: Any = Present(present=False)
            case str():
                test = StringMatcher("exact", wanted)
            case _:
                test = _string_matcher(name, wanted)
        return cls(of, HeaderPredicate(HeaderMatcher(name.lower(), test)))

    @classmethod
    def by_matcher(cls, of: str, wanted: Any) -> Self:
        """A header by `envoy.config.route.v3.HeaderMatcher` in proto3 JSON."""
        from envoy.config.route.v3.route_components_pb2 import HeaderMatcher as Message
        from google.protobuf.json_format import ParseDict, ParseError

        from meshlib.sources.xds.decode.context import Context, UnsupportedError
        from meshlib.sources.xds.decode.matchers import header_matcher

        try:
            message = ParseDict(_plain(wanted), Message())
            return cls(of, HeaderPredicate(header_matcher(Context("route tests"), message, "")))
        except (ParseError, UnsupportedError, AttributeError, TypeError) as error:
            raise ValueError(f"no header matcher: {error}") from None


def _string_matcher(header: str, wanted: Any) -> StringMatcher:
    for kind in _STRING_KINDS:
        if isinstance(wanted, dict) and list(wanted) == [kind]:
            return StringMatcher(kind, _text(wanted[kind]))
    raise ValueError(f"{header}: a text, null for a missing header, or one of {', '.join(_STRING_KINDS)} is wanted")


def _fact(name: str, read: Callable[[Explanation], Any], convert: Callable[[Any], Any]) -> Callable[[Any], Check]:
    return lambda wanted: FactCheck(name, convert(wanted), read)


def _shown(value: Any) -> str:
    return "none" if value is None or value == "" else repr(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is not a text: put it into quotes")


def _whole(value: Any) -> int:
    if type(value) is int:
        return value
    raise ValueError(f"{value!r} is no whole number")


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{value!r} is neither true nor false")


def _seconds(value: Any) -> float:
    """`3s`, `0.5s` or a number of seconds; 0 is "no timeout", as in Envoy."""
    if isinstance(value, str) and _SECONDS.fullmatch(value):
        return float(value.removesuffix("s"))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{value!r} is no duration like 3s or 0.5s")


def _weights(value: Any) -> dict[str, int]:
    if isinstance(value, dict):
        return {name: _whole(weight) for name, weight in value.items()}
    raise ValueError("{cluster: weight, ...} is wanted")


def _labels(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return dict(value)
    raise ValueError("{name: value, ...} is wanted")


def _plain(value: Any) -> Any:
    """Located values as those protobuf's JSON reader knows."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _of(name: str, *holders: str) -> Callable[[Explanation], Any]:
    """A member of the first of several objects of the explanation that is there."""

    def read(result: Explanation) -> Any:
        found = next((holder for field in holders if (holder := getattr(result, field)) is not None), None)
        return None if found is None else found.get(name)

    return read


CHECKS: dict[str, Callable[[Any], Check]] = {
    "virtual_host": _fact("virtual_host", lambda result: result.virtual_host, _text),
    "virtual_cluster": _fact("virtual_cluster", lambda result: result.virtual_cluster, _text),
    "route": lambda wanted: RouteCheck(str(wanted) if type(wanted) is int else _text(wanted)),
    "cluster": lambda wanted: ClusterCheck(_text(wanted)),
    "weights": _fact(
        "weights", lambda result: {share["cluster"]: share["weight"] for share in result.weights}, _weights
    ),
    "subset": _fact("subset", _of("subset", "balancing"), _labels),
    "endpoint": _fact("endpoint", lambda result: result.endpoint, _text),
    "authority": _fact("authority", lambda result: result.authority, _text),
    "path": _fact("path", lambda result: result.path, _text),
    "timeout": _fact("timeout", _of("route", "timeouts"), _seconds),
    "num_retries": _fact("num_retries", _of("num_retries", "retry_policy"), _whole),
    "status": _fact("status", _of("status", "redirect", "direct_response"), _whole),
    "location": _fact("location", _of("location", "redirect"), _text),
    "body": _fact("body", _of("body", "direct_response"), _text),
    "response_flag": _fact("response_flag", lambda result: result.response_flag, _text),
    "pass_through": _fact("pass_through", lambda result: result.pass_through, _flag),
}
"""What can be expected, by its name in a case; a ValueError says what is wrong with the value."""
