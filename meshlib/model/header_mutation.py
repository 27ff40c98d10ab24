"""The header mutation filter (`envoy.extensions.filters.http.header_mutation.v3`)."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.filters import FilterConfig
from meshlib.model.headers import HeaderValueOption
from meshlib.model.matchers import StringMatcher

__all__ = ["HeaderMutationFilter", "MutationStep"]


@dataclass(frozen=True, slots=True)
class MutationStep:
    """One change; exactly one of the three is set: a header to `remove`, headers to `remove_matching` by their names,
    or one to `append`.
    """

    remove: str = ""
    remove_matching: StringMatcher | None = None
    append: HeaderValueOption | None = None


@dataclass(frozen=True, slots=True)
class HeaderMutationFilter(FilterConfig):
    """`envoy.filters.http.header_mutation`: changes of request and response headers and of query parameters, one after
    the other, in the order they stand in.

    In `typed_per_filter_config` it does not take the place of the filter's own changes: they come first, then those of
    the levels, from the most specific to the widest, or with `most_specific_wins` (of the filter itself) in the order
    of which the most specific is last.
    """

    request: tuple[MutationStep, ...] = ()
    response: tuple[MutationStep, ...] = ()
    query: tuple[MutationStep, ...] = ()
    most_specific_wins: bool = False
