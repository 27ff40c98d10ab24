"""The header mutation filter, and what routes add to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.model.header_mutation import HeaderMutationFilter, MutationStep
from meshlib.model.headers import HeaderValueOption
from meshlib.sources.xds.decode.common import enum_name, header_options
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.string_matcher import string_matcher

HEADER_MUTATION_TYPE = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
PER_ROUTE_TYPE = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"
_MODULE = "envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2"
HEADER_MUTATION_MODULES = {HEADER_MUTATION_TYPE: _MODULE, PER_ROUTE_TYPE: _MODULE}
_FILTER = fields("mutations", "most_specific_header_mutations_wins")
_MUTATIONS = fields(
    "request_mutations",
    "response_mutations",
    "query_parameter_mutations",
    instead={
        "response_trailers_mutations": "trailers are left as they are",
        "request_trailers_mutations": "trailers are left as they are",
    },
)
_HEADER = fields("remove", "append", "remove_on_match")
_PARAMETER = fields("remove", "append")


def header_mutation(ctx: Context, message: Any, path: str) -> HeaderMutationFilter:
    """The filter's configuration."""
    ctx.check_fields(message, path, _FILTER)
    return _decoded(ctx, message, path, wins=message.most_specific_header_mutations_wins)


def header_mutation_per_route(ctx: Context, message: Any, path: str) -> HeaderMutationFilter:
    """What a level of a route adds."""
    return _decoded(ctx, message, path, wins=False)


def _decoded(ctx: Context, message: Any, path: str, *, wins: bool) -> HeaderMutationFilter:
    mutations, where = message.mutations, join(path, "mutations")
    ctx.check_fields(mutations, where, _MUTATIONS)
    return HeaderMutationFilter(
        request=tuple(_headers(ctx, mutations.request_mutations, join(where, "request_mutations"))),
        response=tuple(_headers(ctx, mutations.response_mutations, join(where, "response_mutations"))),
        query=tuple(_parameters(ctx, mutations.query_parameter_mutations, join(where, "query_parameter_mutations"))),
        most_specific_wins=wins,
    )


def _headers(ctx: Context, messages: Any, path: str) -> Iterator[MutationStep]:
    for index, message in enumerate(messages):
        where = f"{path}[{index}]"
        ctx.check_fields(message, where, _HEADER)
        match message.WhichOneof("action"):
            case "append":
                for option in header_options(ctx, [message.append], join(where, "append")):
                    yield MutationStep(append=option)
            case "remove_on_match":
                try:
                    key = string_matcher(ctx, message.remove_on_match.key_matcher, join(where, "remove_on_match"))
                except UnsupportedError as error:
                    ctx.degraded(error.path, f"{error.reason}; nothing is removed")
                else:
                    yield MutationStep(remove_matching=key)
            case _:
                yield MutationStep(remove=message.remove.lower())


def _parameters(ctx: Context, messages: Any, path: str) -> Iterator[MutationStep]:
    for index, message in enumerate(messages):
        where = f"{path}[{index}]"
        ctx.check_fields(message, where, _PARAMETER)
        if not message.HasField("append"):
            yield MutationStep(remove=message.remove)
            continue
        given = message.append
        key, value = given.entry.key, given.entry.value.decode("latin-1")
        if given.HasField("record"):
            key, value = given.record.key, given.record.value.string_value
        action: Any = enum_name(given, "action", join(where, "append"))
        yield MutationStep(append=HeaderValueOption(key, value, action, keep_empty_value=True))
