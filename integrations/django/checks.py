"""System checks: `manage.py check` says what is wrong with `MESHLIB`, its files and the middleware, before a request
does.

| id | says |
|---|---|
| meshlib.E001 | `MESHLIB` is missing, or one of its settings is unknown or wrong |
| meshlib.E002 | a configuration file is wrong: resource, field, reason, as `meshlib check` says it |
| meshlib.W001 | a configuration file asks for something meshlib does not apply |
| meshlib.W002 | the middleware is missing |
| meshlib.W003 | the middleware is not first |
| meshlib.W004 | a sync-only middleware makes every request of an async server go through a thread |
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  Django's own name
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from meshlib.settings import configuration_issues, mistakes

from .process import mesh_settings  # noqa: TID252  see __init__

OURS = "meshlib.integrations.django.MeshMiddleware"
# What may stand before: it makes no calls, and answers only what no service asks.
MAY_PRECEDE = frozenset({"django.middleware.security.SecurityMiddleware", "whitenoise.middleware.WhiteNoiseMiddleware"})


def check_settings(app_configs: object = None, **options: object) -> list[CheckMessage]:
    """E001."""
    try:
        given = mesh_settings()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="meshlib.E001")]
    if not hasattr(given, "keys"):
        return [Error(f"MESHLIB is a {type(given).__name__}, not a dictionary", id="meshlib.E001")]
    return [
        Error(f"MESHLIB[{wrong.key!r}]: {wrong.message}", hint=wrong.hint, id="meshlib.E001")
        for wrong in mistakes(given)
    ]


def check_configuration(app_configs: object = None, **options: object) -> list[CheckMessage]:
    """E002 and W001."""
    if check_settings():
        return []  # what they name cannot be trusted
    found: list[CheckMessage] = []
    for issue in configuration_issues(mesh_settings()):
        kind, number = (Error, "E002") if issue.severity == "error" else (Warning, "W001")
        found.append(kind(str(replace(issue, fix="")), hint=issue.fix or None, id=f"meshlib.{number}"))
    return found


def check_middleware(app_configs: object = None, **options: object) -> list[CheckMessage]:
    """W002, W003 and W004."""
    order = list(settings.MIDDLEWARE)
    if OURS not in order:
        return [
            Warning(
                "requests are served without the mesh: deadlines, trace and limits stop here",
                hint=f"put {OURS!r} first in MIDDLEWARE",
                id="meshlib.W002",
            )
        ]
    found: list[CheckMessage] = []
    before = [name for name in order[: order.index(OURS)] if name not in MAY_PRECEDE]
    if before:
        found.append(
            Warning(
                f"{', '.join(before)} run before the mesh: what they call has no deadline and no trace",
                hint=f"put {OURS!r} first in MIDDLEWARE",
                id="meshlib.W003",
            )
        )
    if getattr(settings, "ASGI_APPLICATION", None):
        found += [_sync_only(name) for name in order if not _is_async_capable(name)]
    return found


def _sync_only(name: str) -> CheckMessage:
    return Warning(
        f"{name} is sync only: under ASGI every request goes through a thread there and back",
        hint="make it async capable (django.utils.decorators.sync_and_async_middleware), or serve by WSGI",
        id="meshlib.W004",
    )


def _is_async_capable(name: str) -> bool:
    try:
        middleware: Any = import_string(name)
    except ImportError:
        return True  # Django says so itself, and better
    return bool(getattr(middleware, "async_capable", False))
