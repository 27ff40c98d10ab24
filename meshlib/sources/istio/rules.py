"""Which DestinationRule holds for a host and a caller (istiod: `destination_rule.go`, `push_context.go`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from meshlib.sources.files.resources import IstioDocument
from meshlib.sources.istio.caller import Caller
from meshlib.sources.istio.destination_rule import Rule
from meshlib.sources.istio.hosts import HostIndex
from meshlib.sources.istio.names import ROOT_NAMESPACE, resolve

_OWN = "."


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """The rules of every namespace as one caller meets them."""

    own: HostIndex[Rule]
    """Those of the caller's namespace."""

    exported: Mapping[str, HostIndex[Rule]]
    """Those that are for others too, by namespace."""

    caller: Caller

    def find(self, host: str, namespace: str) -> Rule | None:
        """The rule for a host of a service in `namespace`: of the caller's namespace, then of the service's, then of
        the root's. In the first of them that speaks of the host the very host goes before the longest wildcard, and
        there a rule that selects this caller before one for all.
        """
        if found := self.own.of(host):
            return self._selected(found)
        for place in (namespace, ROOT_NAMESPACE):
            candidates = self.exported[place].of(host) if place in self.exported else ()
            if found := tuple(rule for rule in candidates if self._is_exported(rule)):
                return self._selected(found)
        return None

    def _is_exported(self, rule: Rule) -> bool:
        return not rule.export_to or bool(rule.export_to & {"*", self.caller.namespace})

    def _selected(self, rules: tuple[Rule, ...]) -> Rule | None:
        for rule in rules:
            is_own = rule.namespace == self.caller.namespace
            if rule.selector is not None and is_own and self.caller.has(dict(rule.selector)):
                return rule
        unselective = [rule for rule in rules if rule.selector is None]
        return unselective[-1] if unselective else None


def rules_for(documents: Iterable[IstioDocument], caller: Caller) -> Rules:
    """The rules of the documents, which come with the oldest first."""
    ordered = [_rule(document) for document in documents]
    ordered.sort(key=lambda rule: rule.selector is None)  # those with a selector first, else as they come
    own = [rule for rule in ordered if rule.namespace == caller.namespace and _is_for_own(rule)]
    if caller.namespace == ROOT_NAMESPACE:  # its rules for everybody are the last resort, for it as for others
        own = [rule for rule in own if _is_private(rule)]
    exported: dict[str, list[Rule]] = {}
    for rule in _consolidated(rule for rule in ordered if not _is_private(rule)):
        exported.setdefault(rule.namespace, []).append(rule)
    return Rules(_index(_consolidated(own)), {place: _index(found) for place, found in exported.items()}, caller)


def _index(rules: Iterable[Rule]) -> HostIndex[Rule]:
    return HostIndex((rule.host, rule) for rule in rules)


def _rule(document: IstioDocument) -> Rule:
    spec = document.spec
    selector = (spec.get("workloadSelector") or {}).get("matchLabels") if spec.get("workloadSelector") else None
    export_to = frozenset(spec.get("exportTo") or ())
    if spec.get("workloadSelector") is not None:
        selector, export_to = selector or {}, frozenset({_OWN})
    labels = None if selector is None else tuple(sorted(selector.items()))
    return Rule(resolve(spec["host"], document.namespace), document.namespace, spec, export_to, labels)


def _is_for_own(rule: Rule) -> bool:
    return not rule.export_to or bool(rule.export_to & {"*", _OWN, rule.namespace})


def _is_private(rule: Rule) -> bool:
    return rule.export_to in ({_OWN}, {rule.namespace})


def _consolidated(rules: Iterable[Rule]) -> Iterator[Rule]:
    """Rules of one namespace and host put together where they are for the same callers: the first traffic policy, all
    subsets. One that is for more callers than an older one adds to that and stands for itself besides.
    """
    known: dict[tuple[str, str], list[Rule]] = {}
    for rule in rules:
        found = known.setdefault((rule.namespace, rule.host), [])
        stands_apart = _merge_into(found, rule)
        if stands_apart:
            found.append(rule)
    for found in known.values():
        yield from found


def _merge_into(known: list[Rule], rule: Rule) -> bool:
    stands_apart = True
    for index, older in enumerate(known):
        if rule.export_to == older.export_to:
            stands_apart = False
        elif older.export_to and rule.export_to >= older.export_to:
            stands_apart = True
        else:
            stands_apart = True
            continue
        if older.selector is not None and rule.selector is not None and older.selector != rule.selector:
            stands_apart = True
            continue
        if older.selector == rule.selector:
            stands_apart = False
        known[index] = _joined(older, rule)
    return stands_apart


def _joined(older: Rule, rule: Rule) -> Rule:
    names = {subset["name"] for subset in older.spec.get("subsets") or ()}
    more = [subset for subset in rule.spec.get("subsets") or () if subset["name"] not in names]
    policy = older.spec.get("trafficPolicy") or rule.spec.get("trafficPolicy")
    subsets = [*(older.spec.get("subsets") or ()), *more]
    return replace(older, spec={**older.spec, "trafficPolicy": policy, "subsets": subsets})
