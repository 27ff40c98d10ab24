"""Certificate provider instances of an xDS bootstrap (gRFC A29): the `file_watcher` plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from meshlib.errors import ConfigurationError
from meshlib.identity.identity import Identity

_REFRESH_SECONDS = 600.0  # gRFC A29's default


class Instance(Protocol):
    """An entry of the bootstrap's `certificate_providers`."""

    @property
    def instance_name(self) -> str:
        """What clusters call it."""

    @property
    def plugin_name(self) -> str:
        """What kind it is."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The plugin's own configuration."""


class ProviderInstances:
    """Identities by instance name: those given in code first, then those of the bootstrap, made when first wanted."""

    def __init__(self, given: Mapping[str, Identity], instances: Callable[[], Iterable[Instance]]) -> None:
        self._known = dict(given)
        self._instances = instances

    def __call__(self, name: str) -> Identity | None:
        """The identity of an instance, None when nobody names it. Raises ConfigurationError for one that is no good."""
        if name not in self._known:
            for instance in self._instances():
                if instance.instance_name == name:
                    self._known[name] = _identity(instance)
        return self._known.get(name)


def _identity(instance: Instance) -> Identity:
    if instance.plugin_name != "file_watcher":
        raise ConfigurationError(
            f"certificate provider {instance.instance_name!r}: plugin {instance.plugin_name!r} is not known, "
            "use file_watcher"
        )
    config = instance.config
    files = [str(config.get(f"{name}_file") or "") for name in ("certificate", "private_key", "ca_certificate")]
    if not files[0] and not files[2]:
        raise ConfigurationError(
            f"certificate provider {instance.instance_name!r}: names neither certificate_file nor ca_certificate_file"
        )
    if bool(files[0]) != bool(files[1]):
        raise ConfigurationError(
            f"certificate provider {instance.instance_name!r}: certificate_file and private_key_file go together"
        )
    return Identity.from_files(*files, refresh_interval=_seconds(config.get("refresh_interval"), instance))


def _seconds(value: Any, instance: Instance) -> float:
    """A protobuf duration in JSON ("600s")."""
    if value is None:
        return _REFRESH_SECONDS
    try:
        seconds = float(str(value).removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigurationError(
            f'certificate provider {instance.instance_name!r}: refresh_interval {value!r} is no duration like "600s"'
        )
    return seconds
