"""Subsets by endpoint metadata: `lb_subset_config`, or the subset extension, which has the same fields and a child."""

from __future__ import annotations

from typing import Any

from meshlib.model.lb import LbSubsetConfig, SubsetSelector
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import enum_name, struct
from meshlib.sources.xds.decode.context import Context, fields, join

_SUBSET = fields(
    "subset_selectors",
    "fallback_policy",
    "default_subset",
    "metadata_fallback_policy",
    "list_as_any",
    "panic_mode_any",
    "allow_redundant_keys",
    "locality_weight_aware",
    "scale_locality_weight",
    "subset_lb_policy",
)
_SELECTOR = fields("keys", "fallback_policy", "fallback_keys_subset", "single_host_per_subset")


def subset_config(ctx: Context, message: Any, path: str) -> LbSubsetConfig:
    """The configuration; a selector without keys does not count, as in Envoy."""
    ctx.check_fields(message, path, _SUBSET)
    where = join(path, "subset_selectors")
    found = [_selector(ctx, item, f"{where}[{index}]") for index, item in enumerate(message.subset_selectors)]
    fallback: Any = enum_name(message, "fallback_policy", path)
    return LbSubsetConfig(
        tuple(selector for selector in found if selector.keys),
        fallback,
        struct(message.default_subset),
        metadata_fallback_list=enum_name(message, "metadata_fallback_policy", path) == "FALLBACK_LIST",
        list_as_any=message.list_as_any,
        panic_mode_any=message.panic_mode_any,
        # `lb_subset_config` has no such field
        allow_redundant_keys=bool(getattr(message, "allow_redundant_keys", False)),
        locality_weight_aware=message.locality_weight_aware,
        scale_locality_weight=message.scale_locality_weight,
    )


def _selector(ctx: Context, message: Any, path: str) -> SubsetSelector:
    ctx.check_fields(message, path, _SELECTOR)
    keys, fallback_keys = set(message.keys), set(message.fallback_keys_subset)
    fallback: Any = enum_name(message, "fallback_policy", path)
    if fallback == "KEYS_SUBSET" and not (fallback_keys and fallback_keys < keys):
        where = join(path, "fallback_keys_subset")
        raise ResourceError(
            where, f"KEYS_SUBSET needs some of the selector's keys, and not all, has {sorted(fallback_keys)}"
        )
    if message.single_host_per_subset and len(keys) != 1:
        raise ResourceError(join(path, "single_host_per_subset"), "needs a selector of one key")
    return SubsetSelector(
        tuple(sorted(keys)), fallback, tuple(sorted(fallback_keys)), bool(message.single_host_per_subset)
    )
