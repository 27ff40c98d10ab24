"""RequestMirrorPolicy of routes, virtual hosts and route configurations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshlib.model.headers import HeaderMutations
from meshlib.model.matchers import ALWAYS, FractionalPercent
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import fractional_percent, header_options, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join

_POLICY = fields(
    "cluster",
    "cluster_header",
    "runtime_fraction",
    "trace_sampled",
    "disable_shadow_host_suffix_append",
    "request_headers_mutations",
    "host_rewrite_literal",
)
_FRACTION = fields("default_value", "runtime_key")


def mirror_policies(ctx: Context, message: Any, path: str) -> tuple[RequestMirrorPolicy, ...]:
    """`request_mirror_policies` of a message that has them."""
    where = join(path, "request_mirror_policies")
    return tuple(
        _policy(ctx, policy, f"{where}[{index}]") for index, policy in enumerate(message.request_mirror_policies)
    )


def _policy(ctx: Context, message: Any, path: str) -> RequestMirrorPolicy:
    ctx.check_fields(message, path, _POLICY)
    if bool(message.cluster) == bool(message.cluster_header):
        raise ResourceError(path, "exactly one of cluster, cluster_header is required")
    traced = wrapped(message, "trace_sampled", None)
    if traced:
        ctx.degraded(join(path, "trace_sampled"), "a copy is sampled as its request is")
    return RequestMirrorPolicy(
        message.cluster,
        message.cluster_header.lower(),
        _fraction(ctx, message, path),
        message.disable_shadow_host_suffix_append,
        message.host_rewrite_literal,
        _mutations(ctx, message.request_headers_mutations, join(path, "request_headers_mutations")),
        traced is not False,
    )


def _fraction(ctx: Context, message: Any, path: str) -> FractionalPercent:
    if not message.HasField("runtime_fraction"):
        return ALWAYS
    fraction = message.runtime_fraction
    ctx.check_fields(fraction, join(path, "runtime_fraction"), _FRACTION)
    return replace(fractional_percent(fraction.default_value), runtime_key=fraction.runtime_key)


def _mutations(ctx: Context, messages: Any, path: str) -> tuple[HeaderMutations, ...]:
    found = (_mutation(ctx, message, f"{path}[{index}]") for index, message in enumerate(messages))
    return tuple(mutations for mutations in found if mutations)


def _mutation(ctx: Context, message: Any, path: str) -> HeaderMutations:
    """One change: Envoy refuses those of the host and of pseudo headers when they are to happen; here they are refused
    as in every other list of headers.
    """
    match message.WhichOneof("action"):
        case "remove":
            return HeaderMutations(remove=(message.remove.lower(),))
        case "append":
            return HeaderMutations(header_options(ctx, [message.append], join(path, "append")))
        case other:
            ctx.degraded(join(path, str(other)), "headers are removed by their names only")
            return HeaderMutations()
