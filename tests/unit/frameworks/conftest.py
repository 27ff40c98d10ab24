"""Django, configured once for this process; each test overrides what it is about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings

OURS = "meshlib.integrations.django.MeshMiddleware"
STATIC = {"STATIC": {"payments": ["127.0.0.1:1"]}}


@pytest.fixture(scope="session", autouse=True)
def django() -> None:
    import django

    settings.configure(
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["meshlib.integrations.django"],
        MESHLIB=STATIC,
        MIDDLEWARE=[OURS],
        ROOT_URLCONF="unit.frameworks.django_urls",
        SECRET_KEY="for tests",
    )
    django.setup()


@pytest.fixture
def configured() -> Iterator[Any]:
    """`configured(MESHLIB={...}, MIDDLEWARE=[...])` until the test ends."""
    from django.test import override_settings

    active = []

    def configure(**changes: Any) -> None:
        override = override_settings(**changes)
        override.enable()
        active.append(override)

    configure(MESHLIB=STATIC)
    yield configure
    for override in reversed(active):
        override.disable()
