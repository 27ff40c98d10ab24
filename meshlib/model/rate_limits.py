"""Rate limit actions: which descriptors a request has (`envoy.config.route.v3.RateLimit`), for local limits and for a
rate limit service alike.

A `RateLimit` is a list of actions. Each adds an entry (a key and a value) to one descriptor; where one of them has
nothing to add there is no descriptor at all, unless it says `skip_if_absent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from meshlib.model.context_matchers import IpRanges
from meshlib.model.matcher_tree import Input
from meshlib.model.matchers import HeaderMatcher, QueryParameterMatcher
from meshlib.model.metadata import Struct

__all__ = [
    "UNIT_SECONDS",
    "Action",
    "Descriptor",
    "DescriptorLimit",
    "DestinationCluster",
    "Entry",
    "GenericKey",
    "HeaderValueMatch",
    "HitsAddend",
    "InputValue",
    "MaskedRemoteAddress",
    "MetadataLimit",
    "MetadataValue",
    "QueryParameterValue",
    "QueryParameterValueMatch",
    "RateLimit",
    "RemoteAddress",
    "RemoteAddressMatch",
    "RequestHeader",
    "SourceCluster",
    "Unit",
    "VhRateLimits",
    "XRateLimitHeaders",
    "limit_of",
]

Entry = tuple[str, str]
"""Key and value of a descriptor's entry."""
Unit = Literal["SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR"]
"""`envoy.type.v3.RateLimitUnit`."""
UNIT_SECONDS: dict[str, int] = {
    "SECOND": 1,
    "MINUTE": 60,
    "HOUR": 3600,
    "DAY": 86400,
    "WEEK": 604800,
    "MONTH": 2592000,
    "YEAR": 31536000,
}
XRateLimitHeaders = Literal["UNSPECIFIED", "OFF", "DRAFT_VERSION_03"]
"""Whether responses say how much is left, in `x-ratelimit-*`; UNSPECIFIED: as the filter says."""
VhRateLimits = Literal["OVERRIDE", "INCLUDE", "IGNORE"]
"""When the virtual host's actions count: where the route has none, always, never."""


@dataclass(frozen=True, slots=True)
class DescriptorLimit:
    """A limit that stands in place of the configured one: so many requests for `unit_multiplier` units."""

    requests_per_unit: int
    unit: Unit
    unit_multiplier: int = 1


class Descriptor(NamedTuple):
    """What a request is limited by: entries in order. `hits_addend`: how much it counts for (None: the filter's own
    default, 1); negative ones give back.
    """

    entries: tuple[Entry, ...]
    limit: DescriptorLimit | None = None
    hits_addend: int | None = None
    x_ratelimit: XRateLimitHeaders = "UNSPECIFIED"


@dataclass(frozen=True, slots=True)
class SourceCluster:
    """`source_cluster`: the cluster this process is of (`node.cluster`)."""


@dataclass(frozen=True, slots=True)
class DestinationCluster:
    """`destination_cluster`: the cluster that the route leads to."""


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """`request_headers`: the first value of a header (`name` in lower case, or a pseudo header)."""

    name: str
    key: str
    skip_if_absent: bool = False


@dataclass(frozen=True, slots=True)
class QueryParameterValue:
    """`query_parameters`: the first value of a query parameter, decoded."""

    name: str
    key: str
    skip_if_absent: bool = False


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """`remote_address`: the address the request comes from."""


@dataclass(frozen=True, slots=True)
class MaskedRemoteAddress:
    """`masked_remote_address`: the network of that length which the address is in, as `10.0.0.0/8`."""

    v4_prefix: int = 32
    v6_prefix: int = 128


@dataclass(frozen=True, slots=True)
class RemoteAddressMatch:
    """`remote_address_match`: `value` where the request's address is in `ranges`."""

    ranges: IpRanges
    value: str
    key: str = "remote_address_match"
    default_value: str = ""


@dataclass(frozen=True, slots=True)
class GenericKey:
    """`generic_key`: the same for all. Values may hold `%...%` operators, here and in matches, where these are
    formatted (`meshlib.routing.descriptors.Surroundings`); where they come to nothing `default_value` counts.
    """

    value: str
    key: str = "generic_key"
    default_value: str = ""


@dataclass(frozen=True, slots=True)
class HeaderValueMatch:
    """`header_value_match`: `value` where all the headers match, or with `expect_match` False where they do not."""

    value: str
    headers: tuple[HeaderMatcher, ...]
    key: str = "header_match"
    expect_match: bool = True
    default_value: str = ""


@dataclass(frozen=True, slots=True)
class QueryParameterValueMatch:
    """`query_parameter_value_match`: the same of query parameters, decoded."""

    value: str
    parameters: tuple[QueryParameterMatcher, ...]
    key: str = "query_match"
    expect_match: bool = True
    default_value: str = ""


@dataclass(frozen=True, slots=True)
class MetadataValue:
    """`metadata` (and the older `dynamic_metadata`): a text in the request's metadata, or in the route's
    (`source` ROUTE_ENTRY).
    """

    key: str
    namespace: str
    path: tuple[str, ...]
    default_value: str = ""
    source: Literal["DYNAMIC", "ROUTE_ENTRY"] = "DYNAMIC"
    skip_if_absent: bool = False


@dataclass(frozen=True, slots=True)
class InputValue:
    """`extension` with an input of the unified matcher: its value under the extension's name. An empty one adds
    nothing, and one that is not there leaves no descriptor.
    """

    key: str
    input: Input


Action: TypeAlias = (
    SourceCluster
    | DestinationCluster
    | RequestHeader
    | QueryParameterValue
    | RemoteAddress
    | MaskedRemoteAddress
    | RemoteAddressMatch
    | GenericKey
    | HeaderValueMatch
    | QueryParameterValueMatch
    | MetadataValue
    | InputValue
)


@dataclass(frozen=True, slots=True)
class HitsAddend:
    """How much a request counts for: `number`, or what a text with one `%...%` operator makes. With `negative` it
    gives back as much.
    """

    number: int | None = None
    format: str = ""
    negative: bool = False


@dataclass(frozen=True, slots=True)
class MetadataLimit:
    """`limit.dynamic_metadata`: the request's metadata has the limit, as `{requests_per_unit: 5, unit: MINUTE}`."""

    namespace: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One descriptor of the requests of a route or virtual host, for the filters of its `stage`.

    `disable_key`: a runtime key that switches it off for a rate limit service; local limits leave out whatever has
    one, as in Envoy. `limit` stands in place of the service's own. `apply_on_stream_done`: the request counts when it
    has ended.
    """

    actions: tuple[Action, ...]
    stage: int = 0
    disable_key: str = ""
    limit: DescriptorLimit | MetadataLimit | None = None
    hits_addend: HitsAddend | None = None
    apply_on_stream_done: bool = False
    x_ratelimit: XRateLimitHeaders = "UNSPECIFIED"


def limit_of(value: object) -> DescriptorLimit | None:
    """The limit that metadata says, None where it says none."""
    if not isinstance(value, Struct):
        return None
    count, unit = value.get("requests_per_unit"), value.get("unit")
    if isinstance(count, bool) or not isinstance(count, float) or count < 0 or unit not in UNIT_SECONDS:
        return None
    return DescriptorLimit(int(count), unit)  # type: ignore[arg-type]  # one of the words, as was just asked
