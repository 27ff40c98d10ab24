"""The Django app: it brings the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register


class MeshlibConfig(AppConfig):
    """`INSTALLED_APPS = [..., "meshlib.integrations.django"]`."""

    name = "meshlib.integrations.django"
    label = "meshlib"
    verbose_name = "meshlib"

    def ready(self) -> None:
        """Register the checks of `manage.py check`."""
        from .checks import check_configuration, check_middleware, check_settings  # noqa: TID252  see __init__

        for check in (check_settings, check_configuration, check_middleware):
            register(check, "meshlib")
