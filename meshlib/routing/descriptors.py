"""Descriptors of a request, by rate limit actions (`envoy.config.route.v3.RateLimit`), compiled.

They stand with routing, beside the request hash: both read the request by what a route says. Local limits and the
client of a rate limit service ask them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from meshlib.model.context_matchers import IpRanges
from meshlib.model.matchers import Present, QueryParameterMatcher
from meshlib.model.metadata import Metadata, Struct, Value
from meshlib.model.rate_limits import (
    Action,
    Descriptor,
    DescriptorLimit,
    DestinationCluster,
    Entry,
    GenericKey,
    HeaderValueMatch,
    HitsAddend,
    InputValue,
    MaskedRemoteAddress,
    MetadataLimit,
    MetadataValue,
    QueryParameterValue,
    QueryParameterValueMatch,
    RateLimit,
    RemoteAddress,
    RemoteAddressMatch,
    RequestHeader,
    SourceCluster,
    VhRateLimits,
    limit_of,
)
from meshlib.model.request import RequestHead
from meshlib.routing.context_matchers import compile_ranges
from meshlib.routing.facts import NOTHING, CallFacts, Scene
from meshlib.routing.formatters import compile_format
from meshlib.routing.located import at
from meshlib.routing.matcher_tree import compile_input
from meshlib.routing.matchers import HeaderPredicate
from meshlib.routing.query import first_parameter
from meshlib.routing.strings import compile_string
from meshlib.routing.text import as_wire, wire_bytes

MAX_HITS = 1_000_000_000
"""A `hits_addend` that is made from the request may be no larger, as in Envoy."""
LOOPBACK = "127.0.0.1"
"""Where a call from inside the process comes from, unless it says for whom it is made (`x-forwarded-for`)."""

Make = Callable[[RequestHead], Entry | None]
"""An action's entry; None: there is no descriptor. `SKIPPED`: the descriptor goes without it."""
Descriptors = Callable[[RequestHead], list[Descriptor]]
SKIPPED: Entry = ("", "")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What actions read beside the request: the cluster this process is of, the cluster that the route leads to (which
    the request may name), and what is known of the route when a value has `%...%` operators. Those count where the
    values are `formatted`; without it, as in Envoy unless its runtime says otherwise, they are text.
    """

    source_cluster: str = ""
    destination_cluster: Callable[[RequestHead], str] | str = ""
    facts: CallFacts = NOTHING
    formatted: bool = False


def applicable(
    route: Sequence[RateLimit],
    virtual_host: Sequence[RateLimit],
    *,
    include_virtual_host: bool,
    option: VhRateLimits,
    stage: int = 0,
) -> tuple[RateLimit, ...]:
    """What counts for the filters of a stage: the route's, and the virtual host's where the route includes them or the
    filter's `option` says so. OVERRIDE asks whether the route has any at all, of whatever stage.
    """
    chosen = tuple(route)
    if include_virtual_host or option == "INCLUDE" or (option == "OVERRIDE" and not route):
        chosen = (*chosen, *virtual_host)
    return tuple(limit for limit in chosen if limit.stage == stage)


def compile_descriptors(limits: Sequence[RateLimit], where: Surroundings | None = None) -> Descriptors | None:
    """A function from request to descriptors, one at most for each of `limits`; None where there are none. Raises
    `ResourceError` for what cannot be compiled.
    """
    if not limits:
        return None
    around = where or Surroundings()
    makers = []
    for index, limit in enumerate(limits):
        with at(f"rate_limits[{index}]"):
            makers.append(_Descriptor(limit, around))
    if len(makers) == 1:
        only = makers[0]
        return lambda head: [] if (found := only(head)) is None else [found]
    return lambda head: [found for maker in makers if (found := maker(head)) is not None]


class _Descriptor:
    """One `RateLimit`."""

    __slots__ = ("_actions", "_hits", "_limit", "_plain", "_x_ratelimit")

    def __init__(self, limit: RateLimit, where: Surroundings) -> None:
        self._actions: list[Make] = []
        for index, action in enumerate(limit.actions):
            with at(f"actions[{index}]"):
                self._actions.append(_compile_action(action, where))
        self._limit = limit.limit
        self._hits = _compile_hits(limit.hits_addend, where.facts)
        self._x_ratelimit = limit.x_ratelimit
        self._plain = limit.limit is None and limit.hits_addend is None and limit.x_ratelimit == "UNSPECIFIED"

    def __call__(self, head: RequestHead) -> Descriptor | None:
        entries = []
        for action in self._actions:
            entry = action(head)
            if entry is None:
                return None
            if entry is not SKIPPED:
                entries.append(entry)
        if self._plain:
            return Descriptor(tuple(entries))
        hits = None
        if self._hits is not None:
            hits = self._hits(head)
            if hits is None:
                return None
        return Descriptor(tuple(entries), _limit(self._limit, head), hits, self._x_ratelimit)


def _limit(limit: DescriptorLimit | MetadataLimit | None, head: RequestHead) -> DescriptorLimit | None:
    if isinstance(limit, MetadataLimit):
        return limit_of(below(head.metadata, limit.namespace, limit.path))
    return limit


def _compile_hits(addend: HitsAddend | None, facts: CallFacts) -> Callable[[RequestHead], int | None] | None:
    """How much a request counts for; None of one whose text makes no such number, which has no descriptor then."""
    if addend is None:
        return None
    sign = -1 if addend.negative else 1
    made = "" if not addend.format else compile_format(addend.format)
    if addend.number is not None or isinstance(made, str):
        fixed = addend.number if addend.number is not None else _hits(made) if isinstance(made, str) else None
        return lambda head: None if fixed is None else sign * fixed
    write = made

    def value(head: RequestHead) -> int | None:
        hits = _hits(write(_scene(head, facts)))
        return None if hits is None else sign * hits

    return value


def _hits(text: str) -> int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if 0 <= number <= MAX_HITS else None


def _scene(head: RequestHead, facts: CallFacts) -> Scene:
    return Scene(head, head.headers, (), lambda: facts)


# ------------------------------------------------------------------------------------------------------------ actions


def _compile_action(action: Action, where: Surroundings) -> Make:  # noqa: C901, PLR0911  a line for each action
    match action:
        case SourceCluster():
            entry = ("source_cluster", where.source_cluster)
            return lambda head: entry
        case DestinationCluster():
            return _destination(where.destination_cluster)
        case RequestHeader(name=name, key=key, skip_if_absent=skip):
            return _first(key, lambda head: next(iter(head.get_all(name)), None), skip=skip)
        case QueryParameterValue(name=name, key=key, skip_if_absent=skip):
            return _first(key, lambda head: decoded_parameter(head.query, name), skip=skip)
        case RemoteAddress():
            return _first("remote_address", remote_address, skip=False)
        case MaskedRemoteAddress(v4_prefix=v4, v6_prefix=v6):
            return _first("masked_remote_address", lambda head: _masked(remote_address(head), v4, v6), skip=False)
        case RemoteAddressMatch(ranges=ranges):
            return _where(_address_test(ranges), action, where)
        case GenericKey():
            return _where(lambda head: True, action, where)
        case HeaderValueMatch(headers=headers, expect_match=expected):
            tests = [HeaderPredicate(header) for header in headers]
            return _where(lambda head: all(test(head) for test in tests) is expected, action, where)
        case QueryParameterValueMatch(parameters=parameters, expect_match=expected):
            asked = [_parameter_test(parameter) for parameter in parameters]
            return _where(lambda head: all(test(head) for test in asked) is expected, action, where)
        case MetadataValue():
            return _metadata(action, where.facts)
        case InputValue(key=key, input=source):
            return _input(key, compile_input(source))


def _destination(cluster: Callable[[RequestHead], str] | str) -> Make:
    if isinstance(cluster, str):
        entry = ("destination_cluster", cluster)
        return lambda head: entry
    named = cluster
    return lambda head: ("destination_cluster", named(head))


def _first(key: str, value: Callable[[RequestHead], str | None], *, skip: bool) -> Make:
    absent = SKIPPED if skip else None

    def make(head: RequestHead) -> Entry | None:
        found = value(head)
        return absent if found is None else (key, found)

    return make


def _where(
    test: Callable[[RequestHead], bool],
    action: GenericKey | HeaderValueMatch | QueryParameterValueMatch | RemoteAddressMatch,
    around: Surroundings,
) -> Make:
    """The action's value where the test holds. One that comes to nothing is the default value; without that there is no
    descriptor.
    """
    key, default, facts = action.key, action.default_value, around.facts
    made = compile_format(action.value) if around.formatted else as_wire(action.value)
    if isinstance(made, str):
        fixed = (key, made or default)
        return lambda head: fixed if test(head) else None
    write = made

    def make(head: RequestHead) -> Entry | None:
        if not test(head):
            return None
        value = write(_scene(head, facts)) or default
        return (key, value) if value else None

    return make


def _input(key: str, read: Callable[[RequestHead], str | None]) -> Make:
    def make(head: RequestHead) -> Entry | None:
        value = read(head)
        return (key, value) if value else SKIPPED if value is not None else None

    return make


def _metadata(action: MetadataValue, facts: CallFacts) -> Make:
    fixed = facts.route_metadata if action.source == "ROUTE_ENTRY" else None
    namespace, path, key, default = action.namespace, action.path, action.key, action.default_value
    absent = SKIPPED if action.skip_if_absent else None

    def make(head: RequestHead) -> Entry | None:
        found = below(head.metadata if fixed is None else fixed, namespace, path)
        value = as_wire(found) if isinstance(found, str) and found else default
        return (key, value) if value else absent

    return make


def below(metadata: Metadata, namespace: str, path: Iterable[str]) -> Value:
    """The value under a path of keys, None where there is none."""
    value: Value = metadata.namespace(namespace)
    for key in path:
        value = value.get(key) if isinstance(value, Struct) else None
    return value


# --------------------------------------------------------------------------------------------- addresses, parameters


def remote_address(head: RequestHead) -> str | None:
    """The address a request comes from: for a server its peer's. For a call of this process's own the last address in
    `x-forwarded-for`, as a proxy takes it, else this machine's. None of one that is no IP address (a unix socket).
    """
    known = head.remote_address
    if known is None:
        said = (head.get("x-forwarded-for") or "").rpartition(",")[2].strip()
        return _address(said) or LOOPBACK
    return _address(known)


@lru_cache(maxsize=4096)
def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _masked(address: str | None, v4: int, v6: int) -> str | None:
    if address is None:
        return None
    ip = ipaddress.ip_address(address)
    return str(ipaddress.ip_network((ip, v4 if ip.version == 4 else v6), strict=False))


def _address_test(ranges: IpRanges) -> Callable[[RequestHead], bool]:
    inside = compile_ranges(ranges)

    def test(head: RequestHead) -> bool:
        address = remote_address(head)
        return address is not None and inside(address)

    return test


def decoded_parameter(query: str, name: str) -> str | None:
    """The first value of a query parameter, its percent escapes decoded, as Envoy's rate limit actions read it."""
    if "%" not in query:
        return first_parameter(query, as_wire(name))
    wanted = as_wire(name)
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if pair and _decoded(key) == wanted:
            return _decoded(value)
    return None


def _decoded(text: str) -> str:
    return unquote_to_bytes(wire_bytes(text)).decode("latin-1")


def _parameter_test(matcher: QueryParameterMatcher) -> Callable[[RequestHead], bool]:
    name, match = matcher.name, matcher.match
    if isinstance(match, Present):
        present = match.present
        return lambda head: (decoded_parameter(head.query, name) is not None) is present
    test = compile_string(match)
    return lambda head: (value := decoded_parameter(head.query, name)) is not None and test(value)
