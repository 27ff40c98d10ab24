"""Loaded files → a snapshot: decoded by the same decoder as what comes over xDS, and checked as a whole."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeAlias

from meshlib.model.listener import Listener
from meshlib.model.report import Issue, ResourceError
from meshlib.model.route import RouteConfiguration
from meshlib.model.runtime import layered
from meshlib.model.snapshot import Snapshot
from meshlib.sources.files.located import parse_path
from meshlib.sources.files.references import check_duplicates, check_references
from meshlib.sources.files.resources import Loaded, LoadedResource
from meshlib.sources.files.type_registry import (
    ASSIGNMENT,
    CLUSTER,
    LISTENER,
    ROUTE_CONFIGURATION,
    RUNTIME,
    SCOPED_ROUTE_CONFIGURATION,
)
from meshlib.sources.xds.decode import Decoded, decode_message

_NO_VHDS = "of files no virtual host can be asked for; those that are listed count"
_Result: TypeAlias = Decoded | ResourceError


class SnapshotBuilder:
    """Builds snapshots of successive loads; a resource that is the same object as before is not decoded again."""

    def __init__(self) -> None:
        self._results: dict[int, tuple[LoadedResource, _Result]] = {}

    def build(self, loaded: Loaded) -> tuple[Snapshot, tuple[Issue, ...]]:
        """The snapshot of everything usable, and every issue: of the files, of decoding, of references. With an error
        among the issues the snapshot is incomplete, and a caller that has an older one keeps that.
        """
        self._results = {id(item): (item, self._decode(item)) for item in loaded.resources}
        issues = list(loaded.issues)
        usable: dict[str, dict[str, Any]] = {}
        good: list[LoadedResource] = []
        for resource, result in self._results.values():
            if isinstance(result, ResourceError):
                issues.append(located(resource, Issue("error", resource.label, result.path, result.reason)))
                continue
            issues.extend(located(resource, issue) for issue in result.issues if issue.path not in resource.defaults)
            if isinstance(result.resource, RouteConfiguration) and result.resource.vhds:
                issues.append(located(resource, Issue("degraded", resource.label, "vhds", _NO_VHDS)))
            usable.setdefault(resource.type_name, {})[resource.name] = _placed(resource, result)
            good.append(resource)
        issues.extend(check_duplicates(loaded.resources))
        if not any(issue.severity == "error" for issue in loaded.issues):
            # Of a file that could not be read nothing is there to refer to: one error, not one a reference.
            issues.extend(check_references(good, loaded.resources))
        return replace(_snapshot(usable, loaded.version), local=loaded.local), tuple(dict.fromkeys(issues))

    def _decode(self, resource: LoadedResource) -> _Result:
        known = self._results.get(id(resource))
        if known is not None and known[0] is resource:
            return known[1]
        try:
            return decode_message(resource.message)
        except ResourceError as error:
            return error


def build_snapshot(loaded: Loaded) -> tuple[Snapshot, tuple[Issue, ...]]:
    """`SnapshotBuilder.build`, once."""
    return SnapshotBuilder().build(loaded)


def _placed(resource: LoadedResource, decoded: Decoded) -> Any:
    found = decoded.resource
    return replace(found, bound=False) if resource.by_port and isinstance(found, Listener) else found


def _snapshot(usable: dict[str, dict[str, Any]], version: str) -> Snapshot:
    def of(type_name: str) -> MappingProxyType[str, Any]:
        return MappingProxyType(usable.get(type_name, {}))

    return Snapshot(
        of(LISTENER),
        of(ROUTE_CONFIGURATION),
        of(CLUSTER),
        of(ASSIGNMENT),
        version=version,
        runtime=layered(of(RUNTIME).values()),
        scopes=of(SCOPED_ROUTE_CONFIGURATION),
    )


def located(resource: LoadedResource, issue: Issue) -> Issue:
    """The issue with the file and the line of the resource's field."""
    line = resource.origin.line(parse_path(issue.path))
    return Issue(issue.severity, resource.label, issue.path, issue.reason, issue.fix, resource.origin.file, line)
