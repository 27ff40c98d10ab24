"""Rate limit actions of routes, virtual hosts and filters (`envoy.config.route.v3.RateLimit`).

A `RateLimit` with an action that is not supported is left out whole: with an entry less its descriptor would be another
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.model.context_matchers import IpRanges
from meshlib.model.operators import has_stray_percent, unknown_operators
from meshlib.model.rate_limits import (
    Action,
    DescriptorLimit,
    DestinationCluster,
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
)
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import enum_name, wrapped
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.matcher_tree import match_input
from meshlib.sources.xds.decode.matchers import header_matcher, query_matcher
from meshlib.sources.xds.decode.unknown import unknown_fields

_RATE_LIMIT = fields(
    "stage",
    "disable_key",
    "actions",
    "limit",
    "hits_addend",
    "apply_on_stream_done",
    "x_ratelimit_option",
)
_PLAIN: dict[str, Action] = {
    "source_cluster": SourceCluster(),
    "destination_cluster": DestinationCluster(),
    "remote_address": RemoteAddress(),
}
_METADATA_SOURCES = ("DYNAMIC", "ROUTE_ENTRY")
_MAX_STAGE = 10


def rate_limits(ctx: Context, messages: Any, path: str, *, embedded: bool = False) -> tuple[RateLimit, ...]:
    """A list of `RateLimit`. `embedded`: it is a filter's own, which has no stages and no runtime keys (Envoy refuses
    them there).
    """
    return tuple(_rate_limits(ctx, messages, path, embedded=embedded))


def _rate_limits(ctx: Context, messages: Any, path: str, *, embedded: bool) -> Iterator[RateLimit]:
    if not messages:
        return
    from meshlib.sources.xds.decode.added_fields import with_added

    for index, message in enumerate(messages):
        where = f"{path}[{index}]"
        try:
            yield _rate_limit(ctx, with_added(message), where, embedded=embedded)
        except UnsupportedError as error:
            ctx.degraded(error.path, f"{error.reason}; the rate limit is left out")


def _rate_limit(ctx: Context, message: Any, path: str, *, embedded: bool) -> RateLimit:
    ctx.check_fields(message, path, _RATE_LIMIT)
    if embedded and (message.HasField("stage") or message.disable_key):
        raise ResourceError(path, "stage and disable_key are for the rate limits of routes and virtual hosts")
    stage = wrapped(message, "stage", 0)
    if stage > _MAX_STAGE:
        raise ResourceError(join(path, "stage"), f"must be at most {_MAX_STAGE}, is {stage}")
    option: Any = enum_name(message, "x_ratelimit_option", path)
    return RateLimit(
        actions=tuple(
            _action(ctx, action, f"{join(path, 'actions')}[{index}]") for index, action in enumerate(message.actions)
        ),
        stage=stage,
        disable_key=message.disable_key,
        limit=_limit(message.limit, join(path, "limit")) if message.HasField("limit") else None,
        hits_addend=_hits(message.hits_addend, join(path, "hits_addend")) if message.HasField("hits_addend") else None,
        apply_on_stream_done=message.apply_on_stream_done,
        x_ratelimit=option,
    )


def _limit(message: Any, path: str) -> DescriptorLimit | MetadataLimit:
    match message.WhichOneof("override_specifier"):
        case "dynamic_metadata":
            key = message.dynamic_metadata.metadata_key
            return MetadataLimit(key.key, tuple(segment.key for segment in key.path))
        case "rate_limit":
            unit: Any = enum_name(message.rate_limit, "unit", join(path, "rate_limit"))
            if unit != "UNKNOWN":
                return DescriptorLimit(message.rate_limit.requests_per_unit, unit)
            raise ResourceError(join(path, "rate_limit.unit"), "is required")
    raise UnsupportedError(path, "this override is not supported")


def _hits(message: Any, path: str) -> HitsAddend:
    number = message.number.value if message.HasField("number") else None
    if (number is None) is (not message.format):
        raise ResourceError(path, "must have either a number or a format")
    if message.format:
        _check_text(message.format, join(path, "format"))
    return HitsAddend(number, message.format, message.is_negative_hits)


def _check_text(text: str, path: str) -> str:
    """A value that may hold operators."""
    if has_stray_percent(text):
        raise ResourceError(path, f"{text!r}: a percent sign that is not part of a formatter is written %%")
    unknown = unknown_operators(text)
    if unknown:
        raise UnsupportedError(path, f"%{unknown[0]}% is not known to a client")
    return text


def _action(ctx: Context, message: Any, path: str) -> Action:
    kind = message.WhichOneof("action_specifier")
    if kind is None:
        raise UnsupportedError(path, f"field {next(unknown_fields(message), 0)} of Action is not known to this version")
    where, found = join(path, kind), getattr(message, kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    match kind:
        case "request_headers":
            return RequestHeader(found.header_name.lower(), found.descriptor_key, found.skip_if_absent)
        case "query_parameters":
            return QueryParameterValue(found.query_parameter_name, found.descriptor_key, found.skip_if_absent)
        case "masked_remote_address":
            return MaskedRemoteAddress(
                wrapped(found, "v4_prefix_mask_len", 32), wrapped(found, "v6_prefix_mask_len", 128)
            )
        case "dynamic_metadata":
            return _metadata(found, where, 0, skip=False)
        case "metadata":
            return _metadata(found, where, found.source, skip=found.skip_if_absent)
        case "extension":
            return InputValue(found.name, match_input(found, where))
    return _match(ctx, kind, found, where)


def _match(ctx: Context, kind: str, found: Any, where: str) -> Action:
    """The actions of a value under a condition."""
    value = found.descriptor_value
    key, default = found.descriptor_key, found.default_value
    match kind:
        case "generic_key":
            return GenericKey(value, key or "generic_key", default)
        case "header_value_match":
            headers = tuple(
                header_matcher(ctx, m, f"{join(where, 'headers')}[{i}]") for i, m in enumerate(found.headers)
            )
            return HeaderValueMatch(
                value, headers, key or "header_match", wrapped(found, "expect_match", True), default
            )
        case "query_parameter_value_match":
            asked = tuple(
                query_matcher(ctx, m, f"{join(where, 'query_parameters')}[{i}]")
                for i, m in enumerate(found.query_parameters)
            )
            return QueryParameterValueMatch(
                value, asked, key or "query_match", wrapped(found, "expect_match", True), default
            )
    ranges = tuple(f"{item.address_prefix}/{item.prefix_len.value}" for item in found.address_matcher.ranges)
    inverted = getattr(found.address_matcher, "invert_match", False)
    return RemoteAddressMatch(IpRanges(ranges, inverted), value, key or "remote_address_match", default)


def _metadata(found: Any, where: str, source: int, *, skip: bool) -> MetadataValue:
    if source >= len(_METADATA_SOURCES):
        raise UnsupportedError(join(where, "source"), f"metadata of source {source} is not read for descriptors")
    named: Any = _METADATA_SOURCES[source]
    path = tuple(segment.key for segment in found.metadata_key.path)
    return MetadataValue(found.descriptor_key, found.metadata_key.key, path, found.default_value, named, skip)
