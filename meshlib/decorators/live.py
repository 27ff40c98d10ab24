"""Policies by name: what a decorator says is a default, which the configuration of a mesh may change at any time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshlib.model.report import Issue

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

T = TypeVar("T")
PREFIX = "meshlib"


class Settings(Generic[T]):
    """The settings of one decorator, a frozen dataclass of numbers and texts. With a mesh and a name, the runtime keys
    `meshlib.<name>.<decorator>.<field>` of its configuration replace fields, from the next call on. A value that cannot
    be used is reported by the mesh, and the default stays.
    """

    def __init__(self, kind: str, defaults: T, name: str, mesh: Mesh | None) -> None:
        if mesh is not None and not name:
            raise ValueError(f"{kind}(mesh=...) needs a name=: by it the configuration knows the policy")
        self._defaults = defaults
        self._prefix = f"{PREFIX}.{name}.{kind}."
        self._mesh = mesh
        self._seen: object = None
        self._value = defaults

    def now(self) -> T:
        """Those in force."""
        if self._mesh is None:
            return self._defaults
        runtime = self._mesh.runtime.plan.snapshot.runtime
        if runtime is not self._seen:
            self._value = self._read(dict(runtime.items))
            self._seen = runtime  # last: whoever sees it sees its value
        return self._value

    def _read(self, runtime: Mapping[str, Any]) -> T:
        value = self._defaults
        for field in fields(self._defaults):  # type: ignore[arg-type]
            key = self._prefix + field.name
            if key in runtime:
                try:
                    given = _as(type(getattr(self._defaults, field.name)), runtime[key])
                    value = replace(value, **{field.name: given})  # type: ignore[type-var]
                except ValueError as error:
                    self._report(key, str(error))
        return value

    def _report(self, key: str, reason: str) -> None:
        if self._mesh is not None:
            self._mesh.report((Issue("degraded", "Runtime", key, f"{reason}; what the decorator says stays in force"),))


def _as(kind: type, value: Any) -> Any:
    """A value of the runtime as one of the field's type. Raises ValueError."""
    if kind is str and isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or kind not in (int, float):
        raise ValueError(f"{value!r} is not a {'text' if kind is str else 'number'}")
    if kind is int and value != int(value):
        raise ValueError(f"{value!r} is not a whole number")
    return kind(value)
