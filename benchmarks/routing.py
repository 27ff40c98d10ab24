"""What finding a route costs, in tables of 5, 50 and 500 routes, on one core.

    python benchmarks/routing.py [--json] [--check]

Every match starts from a fresh request head, as in a call; what making the head costs is measured beside it and taken
off. Each figure is the best of several rounds: what the code costs, not what else the machine was doing. `--check`
exits non-zero when a table of 5 routes costs more than 1.5 µs for a path, or 500 routes more than twice what 5 cost.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import timeit
from collections.abc import Callable, Iterator

from meshlib.model.matchers import HeaderMatcher, PathMatcher, RouteMatch, StringMatcher
from meshlib.model.request import RequestHead
from meshlib.model.route import DirectResponseAction, Route, RouteConfiguration, VirtualHost
from meshlib.routing.router import RouteTable, VirtualHostTable

ROUNDS = 7
SECONDS_PER_ROUND = 0.05
SIZES = (5, 50, 500)
HOSTS = (10, 10_000)
BUDGET_MICROSECONDS = 1.5
BUDGET_GROWTH = 2.0
HEADERS = [
    (b"Host", b"shop.test"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip, deflate"),
    (b"Connection", b"keep-alive"),
    (b"User-Agent", b"bench"),
    (b"x-canary", b"1"),
]
RNG = random.Random(1)

Figures = dict[str, dict[int, float]]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--json", action="store_true", help="figures as JSON")
    options.add_argument("--check", action="store_true", help="fail when a budget is exceeded")
    arguments = options.parse_args()
    routes = {case: dict(sizes) for case, sizes in _route_figures()}
    hosts = dict(_host_figures())
    if arguments.json:
        print(json.dumps({"match_us": routes, "virtual_host_us": hosts}, indent=2))
    else:
        _print(routes, hosts)
    exceeded = list(_exceeded(routes)) if arguments.check else []
    for line in exceeded:
        print(line, file=sys.stderr)
    return bool(exceeded)


def _table(size: int) -> VirtualHostTable:
    """A service's routes: exact paths and prefixes in turn, one header condition, one catch-all at the end."""
    canary = HeaderMatcher("x-canary", StringMatcher("exact", "1"))
    matches = [RouteMatch(PathMatcher("prefix", "/canary"), (canary,))]
    for number in range(size - 2):
        kind, value = (("path", f"/exact/{number}"), ("prefix", f"/api/{number}/"))[number % 2]
        matches.append(RouteMatch(PathMatcher(kind, value)))  # type: ignore[arg-type]
    matches.append(RouteMatch(PathMatcher("prefix", "/")))
    return VirtualHostTable(
        VirtualHost("h", ("*",), tuple(Route(match, DirectResponseAction(200)) for match in matches))
    )


def _cases(size: int) -> dict[str, str]:
    last = size - 3
    return {
        "exact path": f"/exact/{last - last % 2}",
        "prefix": f"/api/{last - 1 + last % 2}/orders/17?page=2",
        "header condition": "/canary/1",
        "catch-all": "/something/else",
    }


def _route_figures() -> Iterator[tuple[str, list[tuple[int, float]]]]:
    tables = {size: _table(size) for size in SIZES}
    for case in _cases(5):
        yield case, [(size, _match_cost(tables[size], _cases(size)[case])) for size in SIZES]


def _match_cost(table: VirtualHostTable, path: str) -> float:
    head = _cost(lambda: RequestHead("GET", "http", "shop.test", path, HEADERS))
    both = _cost(lambda: table.match(RequestHead("GET", "http", "shop.test", path, HEADERS), RNG))
    return both - head


def _host_figures() -> Iterator[tuple[int, float]]:
    """The first look-up of an authority (the second is a dictionary's)."""
    for count in HOSTS:
        hosts = tuple(VirtualHost(f"h{i}", (f"h{i}.test", f"*.h{i}.test"), ()) for i in range(count))
        find = RouteTable(RouteConfiguration("r", hosts))._domains.find
        yield count, _cost(lambda find=find: find("a.b.h7.test"))  # type: ignore[misc]


def _cost(work: Callable[[], object]) -> float:
    """Microseconds a call."""
    timer = timeit.Timer(work)
    number, _ = timer.autorange()
    number = max(1, int(number * SECONDS_PER_ROUND / max(timer.timeit(number), 1e-9)))
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


def _exceeded(routes: Figures) -> Iterator[str]:
    for case, figures in routes.items():
        if case != "header condition" and figures[5] > BUDGET_MICROSECONDS:
            yield f"{case}: {figures[5]:.2f} µs at 5 routes, the budget is {BUDGET_MICROSECONDS} µs"
        if figures[500] > BUDGET_GROWTH * figures[5]:
            yield f"{case}: {figures[500]:.2f} µs at 500 routes, more than twice the {figures[5]:.2f} µs at 5"


def _print(routes: Figures, hosts: dict[int, float]) -> None:
    print(f"{'match, µs':20}" + "".join(f"{size:>10} routes" for size in SIZES))
    for case, figures in routes.items():
        print(f"{case:20}" + "".join(f"{figures[size]:>17.2f}" for size in SIZES))
    print(f"\n{'virtual host, µs':20}" + "".join(f"{count:>11} hosts" for count in HOSTS))
    print(f"{'first look-up':20}" + "".join(f"{hosts[count]:>17.2f}" for count in HOSTS))


if __name__ == "__main__":
    raise SystemExit(main())
