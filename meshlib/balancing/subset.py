"""Subsets by endpoint metadata (`envoy.lb`), as Envoy's subset load balancer finds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from meshlib.balancing.base import Host
from meshlib.model.lb import LbSubsetConfig, SubsetSelector
from meshlib.model.metadata import Struct, Value

SubsetKey: TypeAlias = "tuple[tuple[str, str], ...] | Literal['any', 'default']"

ANY: SubsetKey = "any"
DEFAULT: SubsetKey = "default"
FALLBACK_LIST = "fallback_list"


class SubsetIndex:
    """Which hosts are in which subset. Health does not matter here: a subset without a healthy host is still the one
    meant, and has its own priorities and panic.
    """

    __slots__ = ("_config", "_fallbacks", "_hosts", "_selectors", "_single")

    def __init__(self, config: LbSubsetConfig, hosts: Sequence[Host]) -> None:
        self._config = config
        self._selectors = [
            replace(selector, keys=tuple(sorted(set(selector.keys)))) for selector in config.selectors if selector.keys
        ]
        if config.allow_redundant_keys:  # the longest that fits counts
            self._selectors.sort(key=lambda selector: -len(selector.keys))
        self._fallbacks = _fallbacks(self._selectors)
        self._single: set[SubsetKey] = set()
        self._hosts = self._members(hosts)
        self._hosts[ANY] = tuple(hosts)
        self._hosts[DEFAULT] = tuple(host for host in hosts if self._is_default(host))

    def find(self, criteria: Struct) -> tuple[SubsetKey, ...]:
        """The subsets for a request, of which the first with an endpoint to use counts; none: no host may be used."""
        items = dict(criteria.items)
        if self._config.metadata_fallback_list and FALLBACK_LIST in items:
            others = items.pop(FALLBACK_LIST)
            if isinstance(others, tuple) and others:
                return tuple(key for other in others for key in self._find({**items, **_fields(other)}))
        return self._find(items)

    def __contains__(self, key: SubsetKey) -> bool:
        return key in self._hosts

    def hosts(self, key: SubsetKey) -> tuple[Host, ...]:
        """The subset's hosts in any health."""
        return self._hosts[key]

    def is_single(self, key: SubsetKey) -> bool:
        """Whether the subset is its first host alone, in any health (`single_host_per_subset`)."""
        return key in self._single

    def _find(self, items: Mapping[str, Value]) -> tuple[SubsetKey, ...]:
        if self._config.allow_redundant_keys:
            items = self._without_redundant(items)
        key = subset_key(sorted(items.items()))
        if key in self._hosts:
            return (key,)
        selector = self._fallbacks.get(tuple(sorted(items)))
        policy = selector.fallback_policy if selector is not None else "NOT_DEFINED"
        if selector is not None and policy == "KEYS_SUBSET":
            return self._find({name: items[name] for name in selector.fallback_keys})
        if policy == "NOT_DEFINED":
            return self._fallback()
        return {"ANY_ENDPOINT": (ANY,), "DEFAULT_SUBSET": (DEFAULT,)}.get(policy, ())

    def _fallback(self) -> tuple[SubsetKey, ...]:
        """That of the whole configuration, for criteria whose keys have none of their own."""
        match self._config.fallback_policy:
            case "ANY_ENDPOINT":
                return (ANY,)
            case "DEFAULT_SUBSET":
                return (DEFAULT, ANY) if self._config.panic_mode_any else (DEFAULT,)
        return ()

    def _without_redundant(self, items: Mapping[str, Value]) -> Mapping[str, Value]:
        for selector in self._selectors:
            if all(name in items for name in selector.keys):
                return {name: items[name] for name in selector.keys}
        return items

    def _members(self, hosts: Sequence[Host]) -> dict[SubsetKey, tuple[Host, ...]]:
        members: dict[SubsetKey, dict[Host, None]] = {}
        for host in sorted(hosts, key=lambda host: host.priority):  # who makes a subset says whether it is of one host
            metadata = dict(host.metadata)
            for selector in self._selectors:
                for key in self._keys_of(metadata, selector.keys):
                    if key not in members:
                        members[key] = {}
                        if selector.single_host_per_subset:
                            self._single.add(key)
                    members[key][host] = None
        return {key: tuple(found) for key, found in members.items()}

    def _keys_of(self, metadata: Mapping[str, Value], keys: Sequence[str]) -> Iterator[SubsetKey]:
        """Of one host: none if it lacks a key; with `list_as_any` one for each way to take a value of every list."""
        found: list[tuple[tuple[str, Value], ...]] = []
        for name in keys:
            if name not in metadata:
                return
            value = metadata[name]
            values = value if self._config.list_as_any and isinstance(value, tuple) else (value,)
            # An empty list of the first key is passed over, as in Envoy.
            found = [(*before, (name, one)) for before in (found or [()]) for one in values]
        yield from map(subset_key, found)

    def _is_default(self, host: Host) -> bool:
        metadata = dict(host.metadata)
        for name, value in self._config.default_subset.items:
            if name not in metadata:
                return False
            own, wanted = metadata[name], repr(value)
            if self._config.list_as_any and isinstance(own, tuple):
                if wanted not in map(repr, own):
                    return False
            elif wanted != repr(own):
                return False
        return True


def subset_key(items: Iterable[tuple[str, Value]]) -> tuple[tuple[str, str], ...]:
    """Items, sorted by name, as one hashable value. By `repr`, because Python's True equals 1.0 and JSON's does not."""
    return tuple((name, repr(value)) for name, value in items)


def _fallbacks(selectors: Sequence[SubsetSelector]) -> dict[tuple[str, ...], SubsetSelector]:
    """The selector whose fallback counts for criteria with just these keys. As in Envoy's tree of keys, a selector that
    comes after a longer one which begins with the same keys has no say.
    """
    found: dict[tuple[str, ...], SubsetSelector] = {}
    known: set[tuple[str, ...]] = set()
    for selector in selectors:
        if selector.keys not in known:
            found[selector.keys] = selector
        known.update(selector.keys[:length] for length in range(1, len(selector.keys) + 1))
    return found


def _fields(value: Value) -> dict[str, Value]:
    return dict(value.items) if isinstance(value, Struct) else {}
