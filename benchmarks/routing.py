"""What finding a route costs, by the kind of condition that tells routes apart, in tables of 5, 500 and 5 000 routes;
what making such a table costs; and what finding a virtual host costs among 10 and among 10 000.

    python -m benchmarks.routing [--json] [--check]

Every match starts from a fresh request head, as in a call; what making the head costs is measured beside it and taken
off. Requests go to routes all over the table. Each figure is the best of several rounds: what the code costs, not what
else the machine was doing. `--check` exits non-zero when a kind costs more at 500 routes than twice what it costs at 5.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
import timeit
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.worker import run
from meshlib.model.matchers import (
    CookieMatcher,
    HeaderMatcher,
    PathMatcher,
    QueryParameterMatcher,
    RouteMatch,
)
from meshlib.model.request import RequestHead
from meshlib.model.route import DirectResponseAction, Route, RouteConfiguration, VirtualHost
from meshlib.model.strings import StringMatcher
from meshlib.routing.router import RouteTable, VirtualHostTable

SIZES = (5, 500, 5000)
HOSTS = (10, 10_000)
ASKED = 50  # requests of a round, to routes all over the table
ROUNDS = 7
SECONDS = 0.01  # of a round
GROWTH = 2.0
MIXED = "paths of all kinds and a header"
IN_TURN = "header, inverted (tried in turn)"
HEADERS = ((b"Host", b"shop.test"), (b"Accept", b"*/*"), (b"User-Agent", b"bench"), (b"Connection", b"keep-alive"))
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
RNG = random.Random(1)

Request = tuple[str, str, tuple[tuple[bytes, bytes], ...]]
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Kind:
    """The n-th route, and a request that only it matches."""

    match: Callable[[int], RouteMatch]
    request: Callable[[int], Request]


def _path(kind: str, pattern: Callable[[int], str], request: Callable[[int], str]) -> Kind:
    return Kind(lambda n: RouteMatch(PathMatcher(kind, pattern(n))), lambda n: ("GET", request(n), ()))  # type: ignore[arg-type]


def _header(kind: str, value: Callable[[int], str], said: Callable[[int], str], **more: bool) -> Kind:
    def match(n: int) -> RouteMatch:
        return _any_path(headers=(HeaderMatcher("x-user", StringMatcher(kind, value(n)), **more),))  # type: ignore[arg-type]

    return Kind(match, lambda n: ("GET", "/orders", ((b"x-user", said(n).encode()),)))


def _any_path(**conditions: Any) -> RouteMatch:
    return RouteMatch(PathMatcher("prefix", "/"), **conditions)


def _by_method(n: int) -> RouteMatch:
    user = HeaderMatcher("x-user", StringMatcher("exact", f"u{n // len(METHODS)}"))
    return _any_path(headers=(HeaderMatcher(":method", StringMatcher("exact", METHODS[n % len(METHODS)])), user))


KINDS: dict[str, Kind] = {
    "exact paths": _path("path", lambda n: f"/s{n % 37}/item/{n}", lambda n: f"/s{n % 37}/item/{n}"),
    "prefixes": _path(
        "prefix", lambda n: f"/s{n % 37}/{'x' * (n % 23)}{n}/", lambda n: f"/s{n % 37}/{'x' * (n % 23)}{n}/17"
    ),
    "separated prefixes": _path("path_separated_prefix", lambda n: f"/s{n % 37}/{n}", lambda n: f"/s{n % 37}/{n}/17"),
    "regexes": _path("safe_regex", lambda n: f"/s{n % 37}/[^/]+/item{n}(/.*)?", lambda n: f"/s{n % 37}/u7/item{n}/17"),
    "path templates": _path("uri_template", lambda n: f"/s{n}/{{user}}/**", lambda n: f"/s{n}/u7/items/17"),
    "one header, exact": _header("exact", lambda n: f"u{n}", lambda n: f"u{n}"),
    "one header, prefix": _header("prefix", lambda n: f"u{n}-", lambda n: f"u{n}-17"),
    "one header, regex": _header("safe_regex", lambda n: f"u{n}-[0-9]+", lambda n: f"u{n}-17"),
    "one header, part of it": _header("contains", lambda n: f"-u{n}-", lambda n: f"17-u{n}-17"),
    "method and a header": Kind(
        _by_method, lambda n: (METHODS[n % len(METHODS)], "/orders", ((b"x-user", b"u%d" % (n // len(METHODS))),))
    ),
    "query parameter": Kind(
        lambda n: _any_path(query_parameters=(QueryParameterMatcher("u", StringMatcher("exact", f"u{n}")),)),
        lambda n: ("GET", f"/orders?u=u{n}", ()),
    ),
    "cookie": Kind(
        lambda n: _any_path(cookies=(CookieMatcher("u", StringMatcher("exact", f"u{n}")),)),
        lambda n: ("GET", "/orders", ((b"cookie", b"u=u%d" % n),)),
    ),
}
_TURNS = [KINDS[name] for name in ("exact paths", "prefixes", "separated prefixes", "regexes", "one header, exact")]
KINDS[MIXED] = Kind(lambda n: _TURNS[n % len(_TURNS)].match(n), lambda n: _TURNS[n % len(_TURNS)].request(n))
TOLD_APART = tuple(KINDS)
"""The kinds that are looked up. What is left, inverted and absent headers, is tried in turn."""
KINDS[IN_TURN] = _header("exact", lambda n: "a", lambda n: "a", invert=True)


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    sizes = SIZES[:2] if options["quick"] else SIZES
    match: Figures = {}
    making: Figures = {}
    for name, kind in KINDS.items():
        for size in sizes:
            table, milliseconds = _made(kind, size)
            making.setdefault(name, {})[str(size)] = milliseconds
            match.setdefault(name, {})[str(size)] = _match_cost(table, [kind.request(n) for n in _spread(size)])
    return {"match_us": match, "compile_ms": making, "virtual_host_us": {str(n): _host_costs(n) for n in HOSTS}}


def _spread(size: int) -> list[int]:
    return [n * size // min(size, ASKED) for n in range(min(size, ASKED))]


def _made(kind: Kind, size: int) -> tuple[VirtualHostTable, float]:
    """A table of that many routes and one that takes the rest, and the milliseconds it took."""
    matches = (*(kind.match(n) for n in range(size)), RouteMatch(PathMatcher("prefix", "/")))
    host = VirtualHost("h", ("*",), tuple(Route(match, DirectResponseAction(200)) for match in matches))
    gc.collect()
    begun = time.perf_counter()
    return VirtualHostTable(host), (time.perf_counter() - begun) * 1e3


def _match_cost(table: VirtualHostTable, requests: list[Request]) -> float:
    def heads() -> Iterator[RequestHead]:
        for method, target, headers in requests:
            yield RequestHead(method, "http", "shop.test", target, (*HEADERS, *headers))

    def both() -> None:
        for head in heads():
            table.match(head, RNG)

    def alone() -> None:
        for _ in heads():
            pass

    return (_cost(both) - _cost(alone)) / len(requests)


def _host_costs(count: int) -> dict[str, float]:
    """A host asked for before (nearly every call), one asked for first, and one that only a wildcard fits."""
    names = [f"{'x' * (n % 29)}{n}.{'n' * (n % 7 + 1)}.svc.cluster.local" for n in range(count)]
    hosts = tuple(VirtualHost(name, (name, f"*.{name}", f"{name}:80"), ()) for name in names)
    table = RouteTable(RouteConfiguration("r", hosts))
    asked = [names[n * count // 10] for n in range(10)]
    deeper = [f"a.b.{name}" for name in asked]
    find = table._domains.find
    return {
        "asked before": _cost(lambda: [table.virtual_host(name) for name in asked]) / len(asked),
        "first asked": _cost(lambda: [find(name) for name in asked]) / len(asked),
        "by wildcard": _cost(lambda: [find(name) for name in deeper]) / len(asked),
    }


def _cost(work: Callable[[], object]) -> float:
    """Microseconds a call."""
    timer = timeit.Timer(work)
    number = max(1, int(SECONDS / max(timer.timeit(3) / 3, 1e-9)))
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


def growth(match: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How much more 500 routes cost than 5, of the kinds that are looked up."""
    return {name: match[name]["500"] / match[name]["5"] for name in TOLD_APART}


def tables(figures: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Title, head, rows."""
    match, making, hosts = figures["match_us"], figures["compile_ms"], figures["virtual_host_us"]
    sizes = list(match[MIXED])
    head = ("told apart by", *(f"{int(size):,} routes" for size in sizes))
    for title, found in (("Finding a route (µs)", match), ("Making the table (ms)", making)):
        yield title, head, [(name, *(f"{costs[size]:.1f}" for size in sizes)) for name, costs in found.items()]
    rows = [(name, *(f"{hosts[count][name]:.2f}" for count in hosts)) for name in hosts["10"]]
    yield "Finding a virtual host (µs)", ("host", *(f"{int(count):,}" for count in hosts)), rows


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--json", action="store_true", help="figures as JSON")
    options.add_argument("--check", action="store_true", help="fail when a kind grows too much")
    arguments = options.parse_args()
    figures = measure({"quick": False})
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        for title, head, rows in tables(figures):
            print(f"\n{title}")
            for row in (head, *rows):
                print(f"  {row[0]:34}" + "".join(f"{cell:>14}" for cell in row[1:]))
    exceeded = [f"{name}: {ratio:.2f}x" for name, ratio in growth(figures["match_us"]).items() if ratio > GROWTH]
    print(*exceeded, sep="\n", file=sys.stderr)
    return bool(exceeded and arguments.check)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("{"):
        run(measure)
    else:
        raise SystemExit(main())
