"""Filters whose configuration is merged over the levels of a route: header mutations and CORS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshlib.model.cors import CORS_FILTER, Cors, CorsPolicy
from meshlib.model.filters import FilterConfig, HttpFilter, PerFilterConfig
from meshlib.model.header_mutation import HeaderMutationFilter
from meshlib.model.request import RequestHead
from meshlib.routing.cors import CorsRules
from meshlib.routing.header_filter import Prepare, compile_prepare, compile_steps
from meshlib.routing.headers import MakeFacts, Mutate, in_turn

Levels = Sequence[Iterable[PerFilterConfig]]
"""`typed_per_filter_config` from the widest level to the most specific."""


def compile_header_filters(filters: Iterable[HttpFilter], levels: Levels) -> tuple[Prepare | None, Mutate | None]:
    """What the header mutation filters of a route do to requests, in their order, and to responses, in the opposite
    order.
    """
    prepares: list[Prepare] = []
    responses: list[Mutate] = []
    for entry in filters:
        own = entry.config
        if isinstance(own, HeaderMutationFilter) and (configs := _in_force(entry, levels)) is not None:
            wide = [config for config in configs if isinstance(config, HeaderMutationFilter)]
            ordered = [own, *(wide if own.most_specific_wins else reversed(wide))]
            prepare = compile_prepare(
                [step for config in ordered for step in config.request],
                [step for config in ordered for step in config.query],
            )
            response = compile_steps([step for config in ordered for step in config.response], "response")
            prepares += [prepare] if prepare is not None else []
            responses += [response] if response is not None else []
    return _chained(prepares), in_turn(*reversed(responses))


def compile_cors(filters: Sequence[HttpFilter], levels: Levels) -> CorsRules | None:
    """The CORS policy of a route. Routes of a listener have one only where its filters do; those that stand alone have
    no filters to ask.
    """
    entry = next((found for found in filters if isinstance(found.config, Cors)), None)
    if entry is None and filters:
        return None
    configs = _in_force(entry or HttpFilter(CORS_FILTER, Cors()), levels) or []
    policies = [config for config in reversed(configs) if isinstance(config, CorsPolicy)]
    return CorsRules(policies) if policies else None


def _in_force(entry: HttpFilter, levels: Levels) -> list[FilterConfig] | None:
    """What the levels say of a filter, from the widest to the most specific; None where it is switched off."""
    disabled, configs = entry.disabled, []
    for level in levels:
        for override in level:
            if override.name == entry.name:
                disabled = override.disabled
                if override.config is not None:
                    configs.append(override.config)
    return None if disabled else configs


def _chained(prepares: Sequence[Prepare]) -> Prepare | None:
    if len(prepares) <= 1:
        return prepares[0] if prepares else None

    def prepare(head: RequestHead, facts: MakeFacts) -> RequestHead:
        for each in prepares:
            head = each(head, facts)
        return head

    return prepare
