"""What a decoder cannot honour: rejected (the resource is not used) or degraded (used without a field)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from meshlib.errors import ConfigurationError

__all__ = ["Issue", "Report", "ResourceError", "in_resource"]


class ResourceError(ConfigurationError):
    """A resource cannot be used. `path` is the field (`virtual_hosts[0].routes[2].match`), `reason` says why and
    what would be valid; `resource` (type and name) is filled in by whoever knows it.
    """

    def __init__(self, path: str, reason: str, resource: str = "") -> None:
        super().__init__(path, reason, resource)
        self.path = path
        self.reason = reason
        self.resource = resource

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.resource, self.path) if part)
        return f"{where}: {self.reason}" if where else self.reason


@contextmanager
def in_resource(name: str) -> Iterator[None]:
    """Name the resource ("Cluster payments") in a `ResourceError` raised inside, unless it is named already."""
    try:
        yield
    except ResourceError as error:
        raise ResourceError(error.path, error.reason, error.resource or name) from error


@dataclass(frozen=True, slots=True)
class Issue:
    """One finding. `error`: the resource was rejected. `degraded`: a field is not supported and was left out.

    `fix` says what to do; `file` and `line` are set where the resource came from a file.
    """

    severity: Literal["error", "degraded"]
    resource: str
    path: str
    reason: str
    fix: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        origin = f"{self.file}:{self.line}: " if self.file and self.line else f"{self.file}: " if self.file else ""
        where = f"{self.resource}: {self.path}" if self.path else self.resource
        return f"{origin}{self.severity}: {where}: {self.reason}" + (f" ({self.fix})" if self.fix else "")


@dataclass(slots=True)
class Report:
    """Collects issues while resources are decoded."""

    issues: list[Issue] = field(default_factory=list)

    def degraded(self, resource: str, path: str, reason: str, fix: str = "") -> None:
        """Note a field that is not honoured."""
        self.issues.append(Issue("degraded", resource, path, reason, fix))

    def rejected(self, error: ResourceError, fix: str = "") -> None:
        """Note a resource that is not used."""
        self.issues.append(Issue("error", error.resource, error.path, error.reason, fix))
