"""Route tables and calls drawn over what grpcio's `xds:///` knows (gRFCs A28, A31, A44), by a seeded `random.Random`.

Many tables stand in one virtual host, one behind the other: the header `x-case` says which of them a call is for.
Everything is from small pools, so that most calls meet several routes and their order decides.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from parts.grpc_calls import GrpcCall, Pairs

Json = dict[str, Any]
NAMES = ("a", "b", "c")
"""The clusters, each with one backend of its name; `nowhere` has no endpoints."""
PATHS = ("/p.A/One", "/p.A/Two", "/p.a/one", "/p.B/One", "/p.AB/One", "/p.A.B/One1")
PREFIXES = ("", "", "/", "/p", "/P", "/p.", "/p.A", "/p.a", "/p.A/", "/P.A/", "/p.A/O", "/p.a/o", "/p.B/One", "p.A")
PATH_REGEXES = ("/p.*", r"/p\.A/.*", "/p.A", "/[^/]+/One", "(/p.A)?/One", "(?i)/P.A/.*", ".*1", "/p.[AB]/(One|Two)", "")
VALUES = ("1", "a", "A", "ab", "aB", "10", "-5", "+7", "007", "9x", "a,b", "x y", "", "9223372036854775808", "1_0")
REGEXES = ("a.*", "[0-9]+", "a|b", ".*", "A|a,b", "x?", "(?i)AB", "[+-]?[0-9]+", r"\w+\s\w")
RANGES = ((0, 11), (-5, 0), (1, 1), (7, 8), (2**63 - 2, 2**63 - 1), (-(2**63), 2**63 - 1), (5, 5))
WORDS = ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")
IDLE_WORDS = ("5xx", "connect-failure", "retriable-4xx", "gateway-error", "reset")
"""Words that grpcio does not know, and that no call of these tests gives a reason to use."""
STATUSES = (0, 1, 2, 4, 8, 10, 13, 14, 14)
FAST = {"base_interval": "0.005s", "max_interval": "0.01s"}
"""A back-off that comes out below a millisecond makes grpcio 1.85 wait for the call's deadline instead."""


@dataclass(frozen=True, slots=True)
class Table:
    """The routes a call with this `x-case` meets, and the calls that are made."""

    case: str
    routes: Sequence[Json]
    calls: Sequence[GrpcCall]


class Draw:
    """Draws tables for a world, whose names for clusters are `cluster("a")`."""

    def __init__(self, rng: Random, cluster: Callable[[str], str], authorities: Sequence[str]) -> None:
        self.rng = rng
        self._cluster = cluster
        self._authorities = tuple(authorities)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    # ------------------------------------------------------------------ whole tables

    def matching(self, case: str, calls: int = 12) -> Table:
        """Which route: paths and headers against a table of a few."""
        routes = [self.route(case) for _ in range(self.rng.randint(1, 5))]
        return Table(case, routes, [self.call(case) for _ in range(calls)])

    def retrying(self, case: str, calls: int = 8) -> Table:
        """How often: a retry policy against backends that fail by a script."""
        action = {"cluster": self._cluster(self.rng.choice(NAMES))}
        if self.chance(0.85):
            action["retry_policy"] = self.retry_policy()
        route = {"match": {"prefix": "", "headers": [asked(case)]}, "route": action}
        return Table(case, [route], [self.failing(case) for _ in range(calls)])

    def timed(self, case: str, calls: int = 3) -> Table:
        """How long: durations of the route against slow answers, well apart from each other."""
        limits = {"max_stream_duration": self.rng.choice(("0s", "0.15s", "30s"))}
        if self.chance(0.5):
            limits["grpc_timeout_header_max"] = self.rng.choice(("0s", "0.15s", "30s"))
        action: Json = {"cluster": self._cluster("a")}
        if self.chance(0.8):
            action["max_stream_duration"] = limits
        route = {"match": {"prefix": "", "headers": [asked(case)]}, "route": action}
        # A call without a timeout meets exception 11 of grpc_xds_differences where the header's limit is set.
        timeouts = (0.1, 8.0) if "grpc_timeout_header_max" in limits else (0.1, 8.0, None)
        slow = {"delay": 0.5}
        made = [
            GrpcCall(metadata=(("x-case", case),), timeout=self.rng.choice(timeouts), script=slow) for _ in range(calls)
        ]
        return Table(case, [route], made)

    def sharing(self, case: str, calls: int = 160) -> tuple[Table, dict[str, float]]:
        """How many: a part of the calls to `a` by a fraction, the others by weights; and each cluster's share."""
        part, weights = self.rng.choice((0, 10, 30)), [self.rng.choice((30, 60, 90)) for _ in NAMES]
        fraction = {"default_value": {"numerator": part}}
        first = {
            "match": {"prefix": "", "headers": [asked(case)], "runtime_fraction": fraction},
            "route": {"cluster": self._cluster("a")},
        }
        shares = [{"name": self._cluster(name), "weight": weight} for name, weight in zip(NAMES, weights, strict=True)]
        split = {"weighted_clusters": {"clusters": shares}}
        second = {"match": {"prefix": "", "headers": [asked(case)]}, "route": split}
        expected = {
            name: part / 100 * (name == "a") + (1 - part / 100) * weight / sum(weights)
            for name, weight in zip(NAMES, weights, strict=True)
        }
        return Table(case, [first, second], [GrpcCall(metadata=(("x-case", case),))] * calls), expected

    # ------------------------------------------------------------------ routes

    def route(self, case: str) -> Json:
        match = {**self.path(), "headers": [asked(case), *self.headers()]}
        if self.chance(0.2):
            match["runtime_fraction"] = {"default_value": self.fraction()}
        if self.chance(0.06):
            match["query_parameters"] = [{"name": "x", "present_match": True}]
        if self.chance(0.06):
            match["grpc"] = {}
        return {"match": match, **self.action()}

    def path(self) -> Json:
        kind = self.rng.choice(("prefix", "prefix", "path", "safe_regex"))
        if kind == "safe_regex":
            return {"safe_regex": {"regex": self.rng.choice(PATH_REGEXES[:-1])}}
        chosen = self.rng.choice(PREFIXES if kind == "prefix" else (*PATHS, "/P.A/ONE", "p.A/One"))
        return {kind: chosen, **self.rng.choice(({}, {"case_sensitive": False}, {"case_sensitive": True}))}

    def headers(self) -> list[Json]:
        return [self.header() for _ in range(self.rng.choice((0, 0, 1, 1, 1, 2)))]

    def header(self) -> Json:
        matcher = {"name": self.rng.choice(("x-a", "x-a", "x-b", "x-b-bin", "x-none")), **self.value()}
        if self.chance(0.15):
            matcher = self.pseudo()
        if self.chance(0.25):
            matcher["invert_match"] = True
        return matcher

    def pseudo(self) -> Json:
        """What gRPC adds to a call."""
        string = self.rng.choice(("exact_match", "prefix_match", "suffix_match", "contains_match"))
        name, values = self.rng.choice(
            (
                ("content-type", ("application/grpc", "grpc", "application", "text/a")),
                (":method", ("POST", "GET", "P")),
                (":authority", self._authorities),
                (":scheme", ("http", "https", "h")),
                ("te", ("trailers", "t")),
            )
        )
        if self.chance(0.2):
            return {"name": self.rng.choice((name, "user-agent")), "present_match": self.chance(0.7)}
        return {"name": name, string: self.rng.choice(values)}

    def value(self) -> Json:
        kind = self.rng.choice(("exact", "prefix", "suffix", "contains", "regex", "range", "present"))
        if kind == "range":
            start, end = self.rng.choice(RANGES)
            return {"range_match": {"start": start, "end": end}}
        if kind == "present":
            return {"present_match": self.chance(0.6)}
        if kind == "regex":
            regex = {"regex": self.rng.choice(REGEXES)}
            return {"safe_regex_match": regex} if self.chance(0.5) else {"string_match": {"safe_regex": regex}}
        text = self.rng.choice([value for value in VALUES if value])
        if self.chance(0.5):
            return {f"{kind}_match": text}
        return {"string_match": {kind: text, **({"ignore_case": True} if self.chance(0.5) else {})}}

    def fraction(self) -> Json:
        denominator, whole = self.rng.choice((("HUNDRED", 100), ("TEN_THOUSAND", 10_000), ("MILLION", 1_000_000)))
        return {"numerator": self.rng.choice((0, whole, whole)), "denominator": denominator}

    def action(self) -> Json:
        if self.chance(0.08):
            to_nobody = {"route": {"cluster": self._cluster("nowhere")}}
            return self.rng.choice((to_nobody, {"non_forwarding_action": {}}, {"filter_action": {}}))
        if self.chance(0.25):
            return {"route": {"weighted_clusters": {"clusters": self.shares()}}}
        action: Json = {"cluster": self._cluster(self.rng.choice(NAMES))}
        if self.chance(0.2):
            action["max_stream_duration"] = {"max_stream_duration": "30s"}
        return {"route": action}

    def shares(self) -> list[Json]:
        """Of which a single one has weight."""
        chosen = self.rng.choice(NAMES)
        weight = self.rng.choice((1, 100, 4_000_000_000))
        shares = [{"name": self._cluster(name), "weight": weight if name == chosen else 0} for name in NAMES]
        return self.rng.sample(shares, 3)

    def retry_policy(self) -> Json:
        words = self.rng.sample(WORDS, self.rng.choice((0, 1, 1, 2, 3, 5)))
        words += self.rng.sample(IDLE_WORDS, self.rng.choice((0, 0, 1, 2)))
        self.rng.shuffle(words)
        policy: Json = {"retry_on": ",".join(words), "retry_back_off": FAST}
        if self.chance(0.8):
            policy["num_retries"] = self.rng.randint(1, 4)
        return policy

    # ------------------------------------------------------------------ calls

    def call(self, case: str) -> GrpcCall:
        names = [name for name, share in (("x-a", 0.75), ("x-b", 0.6)) if self.chance(share)]
        pairs: Pairs = tuple((name, self.rng.choice(VALUES)) for name in names)
        if self.chance(0.3):
            pairs = (*pairs, ("x-b-bin", base64.b64encode(b"a").decode()))
        return GrpcCall(self.rng.choice(PATHS), metadata=(("x-case", case), *pairs))

    def failing(self, case: str) -> GrpcCall:
        statuses = [self.rng.choice(STATUSES) for _ in range(self.rng.randint(1, 5))]
        script = {"statuses": statuses, "details": f"as asked by {case}"}
        return GrpcCall(script=script, metadata=(("x-case", case),))


def asked(case: str) -> Json:
    """What sets the routes of a table apart."""
    return {"name": "x-case", "exact_match": case}


def domains(rng: Random, name: str) -> list[list[str]]:
    """Domains of up to four virtual hosts, one of which is for `name` at least; none twice."""
    half = len(name) // 2
    pool = [name, name.upper(), "*", f"{name[:2]}*", f"{name[:half]}*", f"*{name[-2:]}", f"*{name[half:]}", "other"]
    chosen = ["*", *rng.sample([one for one in pool if one != "*"], rng.randint(1, 5))]
    unique = list({one.lower(): one for one in chosen}.values())
    rng.shuffle(unique)
    hosts: list[list[str]] = [[] for _ in range(min(4, len(unique)))]
    for number, domain in enumerate(unique):
        hosts[number % len(hosts)].append(domain)
    return hosts
