"""What loading yields: messages and Istio documents that know where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from meshlib.model.report import Issue
from meshlib.model.zones import NOWHERE, Local
from meshlib.sources.files.located import FieldPath, format_path, line_of
from meshlib.sources.files.schema import Problem
from meshlib.sources.files.type_registry import short_name


@dataclass(frozen=True, slots=True)
class Origin:
    """A place in a document: `root` is the located document, `prefix` the way from there to the resource."""

    file: str
    root: Any
    prefix: FieldPath = ()

    def line(self, path: FieldPath = ()) -> int:
        """The line of a field of the resource, or of the deepest part of the path that is written out."""
        return line_of(self.root, (*self.prefix, *path))

    def at(self, *steps: str | int) -> Origin:
        """The origin of something inside this one."""
        return Origin(self.file, self.root, (*self.prefix, *steps))

    def __str__(self) -> str:
        return f"{self.file}:{self.line()}"

    def issue(self, problem: Problem, resource: str) -> Issue:
        """The problem as an issue with file and line; the path is the resource's own."""
        return Issue(
            problem.severity, resource, format_path(problem.path), problem.reason, problem.fix,
            self.file, self.line(problem.path),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class LoadedResource:
    """One Envoy resource. `static`: it stood in a bootstrap's `static_resources`. `defaults` are the fields that were
    generated without being written in the file: what becomes of them is nobody's news. `by_port`: a listener for calls
    to its own port only, though an Envoy that is sent it has to bind it. `checked`: what it refers to has been looked
    for where it was written.
    """

    type_name: str
    name: str
    message: Message
    origin: Origin
    static: bool = False
    defaults: frozenset[str] = frozenset()
    by_port: bool = False
    checked: bool = False

    @property
    def label(self) -> str:
        """Type and name, as issues say it."""
        return f"{short_name(self.type_name)} {self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class IstioDocument:
    """One `networking.istio.io` object, not yet translated. `labels` and `created` (RFC 3339) are its metadata's."""

    kind: str
    name: str
    namespace: str
    spec: Any
    origin: Origin
    labels: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def label(self) -> str:
        """Kind, namespace and name, as issues say it."""
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class MeshDocument(IstioDocument):
    """One `meshlib.dev` object, written like Istio's (`meshlib.sources.files.labels`)."""


@dataclass(frozen=True, slots=True)
class Content:
    """What one file, or all of them, hold. `local`: where a bootstrap says that the process is. `transient`: an error
    may only mean that the file is half written.
    """

    resources: tuple[LoadedResource, ...] = ()
    istio: tuple[IstioDocument, ...] = ()
    issues: tuple[Issue, ...] = ()
    transient: bool = False
    mesh: tuple[MeshDocument, ...] = ()
    local: Local = NOWHERE


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything the paths hold, Istio documents translated. `version` changes with the files' text and only then."""

    resources: tuple[LoadedResource, ...]
    issues: tuple[Issue, ...]
    files: tuple[str, ...]
    version: str
    transient: bool = False
    local: Local = NOWHERE

    @property
    def has_errors(self) -> bool:
        """Whether something was rejected."""
        return any(issue.severity == "error" for issue in self.issues)
