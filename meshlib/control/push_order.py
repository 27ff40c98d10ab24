"""From what a subscriber was shown to a new version without ever pointing at what is not there.

Clusters and endpoints first grow to the union of old and new, then listeners and routes move over, and only then do
the old clusters and endpoints go (Envoy: "eventual consistency considerations", make before break). The order starts
from what this stream was shown: a change made while a proxy had no stream reaches it at once and whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshlib.control.resource_store import StoreVersion, View
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, in_push_order

_GROWS_FIRST = (CLUSTER, CLUSTER_LOAD_ASSIGNMENT)


@dataclass(frozen=True, slots=True)
class Step:
    """Show the subscriber this view of a type."""

    type_url: str
    view: View


def steps(shown: Mapping[str, View], target: StoreVersion) -> list[Step]:
    """The steps from the views shown now to those of the target; none where nothing changes."""
    result: list[Step] = []
    now = dict(shown)
    for step in _all_steps(shown, target):
        if dict(now.get(step.type_url, {})) != dict(step.view):
            now[step.type_url] = step.view
            result.append(step)
    return result


def _all_steps(shown: Mapping[str, View], target: StoreVersion) -> Iterator[Step]:
    for type_url in in_push_order({*shown, *target.types}):
        view = target.view(type_url)
        yield Step(type_url, {**shown.get(type_url, {}), **view} if type_url in _GROWS_FIRST else view)
    for type_url in _GROWS_FIRST:
        yield Step(type_url, target.view(type_url))
