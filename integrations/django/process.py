"""What this process has of the mesh, by `settings.MESHLIB`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from meshlib.process import ProcessMesh

if TYPE_CHECKING:
    import httpx

_made: dict[str, ProcessMesh] = {}


def current_process() -> ProcessMesh:
    """The one of this process."""
    return _made.get("process") or _made.setdefault("process", ProcessMesh(mesh_settings))


def mesh_settings() -> Mapping[str, Any]:
    """`settings.MESHLIB`. Raises ImproperlyConfigured without it."""
    given: Mapping[str, Any] | None = getattr(settings, "MESHLIB", None)
    if given is None:
        raise ImproperlyConfigured(
            'there is no MESHLIB in the settings; give for example {"CONFIG": BASE_DIR / "mesh"}'
        )
    return given


def client(service: str) -> httpx.Client:
    """The process's one blocking client for a service, for sync views, tasks and commands."""
    return current_process().client(service)


def async_client(service: str) -> httpx.AsyncClient:
    """The process's one asyncio client for a service, for async views, on any event loop."""
    return current_process().async_client(service)


def _changed(*, setting: str, **told: object) -> None:
    """`override_settings(MESHLIB=...)` in a test: what was made by the settings before is theirs, and over."""
    if setting == "MESHLIB" and (known := _made.pop("process", None)) is not None:
        known.close()


setting_changed.connect(_changed)
