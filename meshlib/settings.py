"""Settings: a mesh from names and values, one schema for every place that has such.

Django's and Flask's `MESHLIB`, and `MESHLIB_*` in the environment of `meshlib run`, hold the same names:

    MESHLIB = {"CONFIG": "conf/", "RATE_LIMITS": ["100/minute"], "READINESS_PATH": "/ready"}

Where the configuration comes from is one of CONFIG, XDS, CONSUL, STATIC and MESH; everything else is optional.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from meshlib.errors import ConfigurationError
from meshlib.mesh import Mesh
from meshlib.model.fault import HttpFault
from meshlib.model.filters import LocalRateLimit
from meshlib.model.global_rate_limit import GlobalRateLimit
from meshlib.model.limiters import RequestLimit
from meshlib.model.report import Issue
from meshlib.model.shedding import NOTATION, Shedding, shedding
from meshlib.policy.fault import Fault
from meshlib.policy.shared_limit import SharedRateLimit

__all__ = [
    "SETTINGS",
    "SOURCES",
    "Mistake",
    "Setting",
    "configuration_issues",
    "mesh_from_settings",
    "mistakes",
    "server_options",
]

SOURCES = ("CONFIG", "XDS", "CONSUL", "STATIC", "MESH")
"""The settings that say where configuration comes from: exactly one is given."""

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One name: `wanted` says in words what it may be, `accepts` checks it."""

    name: str
    wanted: str
    accepts: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with the setting `key`, and what to do about it."""

    key: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message} ({self.hint})"


def _is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike)) and str(value) != ""


def _is_list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and len(value) > 0 and all(map(accepts, value))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_limit(value: object) -> bool:
    return isinstance(value, LocalRateLimit | RequestLimit | SharedRateLimit | GlobalRateLimit) or _is_text(value)


def _is_shed(value: object) -> bool:
    given = _listed(value)
    return bool(given) and all(isinstance(each, Shedding) or _is_text(each) for each in given)


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _is_fault(value: object) -> bool:
    return isinstance(value, (Fault, HttpFault))


def _is_mesh(value: object) -> bool:
    return isinstance(value, Mesh) or callable(value) or (_is_text(value) and "." in str(value).replace(":", "."))


SETTINGS: tuple[Setting, ...] = (
    Setting("CONFIG", "a path or a list of paths", lambda v: _is_path(v) or _is_list_of(_is_path)(v)),
    Setting(
        "XDS",
        "True (the bootstrap named by GRPC_XDS_BOOTSTRAP) or the address of a control plane, 'host:port'",
        lambda v: v is True or _is_text(v),
    ),
    Setting(
        "CONSUL",
        "True (the agent of CONSUL_HTTP_ADDR), an address, or a mapping of Mesh.from_consul's options",
        lambda v: v is True or _is_text(v) or isinstance(v, Mapping),
    ),
    Setting(
        "STATIC", "a mapping of cluster names to lists of 'host:port'", lambda v: isinstance(v, Mapping) and bool(v)
    ),
    Setting("MESH", "a Mesh, a function that makes one, or the dotted path of either", _is_mesh),
    Setting("DECLARED", "a list of service names to subscribe to from the start", _is_list_of(_is_text)),
    Setting("UNKNOWN_HOSTS", "'pass_through' or 'reject'", lambda v: v in ("pass_through", "reject")),
    Setting("FETCH_TIMEOUT", "seconds, 0 or more", _is_seconds),
    Setting("NAME_SERVERS", "a list of texts such as '10.0.0.2' or '10.0.0.2:5353'", _is_list_of(_is_text)),
    Setting("LOCALITY", "where this process runs: 'region/zone/sub_zone'", _is_text),
    Setting("LOCAL_CLUSTER", "the cluster this process is an endpoint of", _is_text),
    Setting(
        "FAULTS",
        "a list of Fault for the requests that are served, or False to inject none, whoever configured them",
        lambda v: isinstance(v, bool) or _is_list_of(_is_fault)(v),
    ),
    Setting("FAILOVER_TIMEOUT", "seconds, more than 0", lambda v: _is_seconds(v) and bool(v)),
    Setting("RATE_LIMITS", "a list of texts such as '100/minute', or of limits", _is_list_of(_is_limit)),
    Setting("SHED", f"a text or a list of texts such as {NOTATION}, or of policies", _is_shed),
    Setting("READINESS_PATH", "a path that begins with '/'", lambda v: _is_text(v) and v.startswith("/")),
    Setting("ADMIN", "the path of the admin socket, with {pid} in it where there are several processes", _is_path),
    Setting("DRAIN_SECONDS", "seconds, 0 or more", _is_seconds),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_OF_MESH = ("NAME_SERVERS", "LOCALITY", "LOCAL_CLUSTER", "FAILOVER_TIMEOUT")
_ONLY_WITH = {"DECLARED": ("XDS", "CONSUL")}


def mesh_from_settings(settings: Settings) -> Mesh:
    """The mesh that the settings describe, not started. Raises ConfigurationError, naming every setting that is wrong,
    what was found there and what would be right.
    """
    wrong = mistakes(settings)
    if wrong:
        raise ConfigurationError("MESHLIB: " + "; ".join(map(str, wrong)))
    options: dict[str, Any] = {}
    if "UNKNOWN_HOSTS" in settings:
        options["unknown_hosts"] = settings["UNKNOWN_HOSTS"]
    if "FETCH_TIMEOUT" in settings:
        options["fetch_timeout"] = float(settings["FETCH_TIMEOUT"])
    options |= {name.lower(): settings[name] for name in _OF_MESH if name in settings}
    if isinstance(settings.get("FAULTS"), bool):
        options["faults"] = settings["FAULTS"]
    if "ADMIN" in settings:
        options["admin"] = settings["ADMIN"]
    (source,) = given_sources(settings)
    return _MAKERS[source](settings[source], settings, options)


def server_options(settings: Settings) -> dict[str, Any]:
    """What of the settings is the server middleware's (`meshlib.http`), as its keyword arguments."""
    names = {"RATE_LIMITS": "rate_limits", "READINESS_PATH": "readiness_path", "DRAIN_SECONDS": "drain_seconds"}
    found = {argument: settings[name] for name, argument in names.items() if name in settings}
    if "SHED" in settings:
        found["shed"] = _listed(settings["SHED"])
    faults = settings.get("FAULTS", ())
    return found if isinstance(faults, bool) or not faults else {**found, "faults": faults}


def given_sources(settings: Settings) -> list[str]:
    """Which of `SOURCES` are set."""
    return [name for name in SOURCES if settings.get(name) is not None]


def mistakes(settings: Settings) -> tuple[Mistake, ...]:
    """Everything that is wrong with settings, without acting on any."""
    found = [_unknown(name) for name in settings if name not in _BY_NAME]
    found += [mistake for name, value in settings.items() for mistake in _wrong(name, value)]
    found += _wrong_sources(settings)
    return tuple(found)


def configuration_issues(settings: Settings) -> tuple[Issue, ...]:
    """What `meshlib check` says about the files of CONFIG; nothing for other sources."""
    config = settings.get("CONFIG")
    if config is None:
        return ()
    from meshlib.cli.check import check

    return check(_several(config)).issues


def _unknown(name: str) -> Mistake:
    close = difflib.get_close_matches(str(name).upper(), _BY_NAME, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_BY_NAME)}"
    return Mistake(str(name), "there is no such setting", hint)


def _wrong(name: str, value: object) -> Iterable[Mistake]:
    setting = _BY_NAME.get(name)
    if setting is None:
        return
    if not setting.accepts(value):
        yield Mistake(name, f"{value!r} is a {type(value).__name__} that cannot be used here", f"give {setting.wanted}")
    elif name == "RATE_LIMITS":
        yield from _wrong_limits(value)
    elif name == "SHED":
        yield from _wrong_shedding(_listed(value))
    elif name == "CONSUL" and isinstance(value, Mapping):
        yield from _wrong_options(value)


def _wrong_limits(limits: Any) -> Iterable[Mistake]:
    from meshlib.policy.notation import local_limit

    for text in limits:
        if isinstance(text, str):
            try:
                local_limit(text)
            except ValueError as error:
                yield Mistake("RATE_LIMITS", f"{text!r}: {error}", "write it as '100/minute'")


def _wrong_shedding(given: Any) -> Iterable[Mistake]:
    for text in given:
        if isinstance(text, str):
            try:
                shedding(text)
            except ValueError as error:
                yield Mistake("SHED", str(error), f"write {NOTATION}")


def _wrong_options(options: Mapping[Any, Any]) -> Iterable[Mistake]:
    """Of the mapping that CONSUL may be. What is a setting of its own is given there only."""
    from meshlib.sources.consul.factory import ARGUMENTS

    of_mesh = inspect.signature(Mesh).parameters.keys() - {"source"}
    known = sorted(ARGUMENTS | of_mesh)
    for name in map(str, options):
        if name.lower() not in known:
            close = difflib.get_close_matches(name.lower(), known, n=1)
            hint = f"did you mean {close[0].upper()}?" if close else "there are those of Mesh.from_consul"
            yield Mistake("CONSUL", f"{name!r}: there is no such option", hint)


def _wrong_sources(settings: Settings) -> Iterable[Mistake]:
    given = given_sources(settings)
    if not given:
        yield Mistake("CONFIG", "nothing says where configuration comes from", f"set one of {', '.join(SOURCES)}")
    elif len(given) > 1:
        yield Mistake(given[1], f"{' and '.join(given)} are set, and a mesh has one source", f"keep one of {given}")
    elif given == ["MESH"] and (
        idle := [name for name in ("UNKNOWN_HOSTS", "FETCH_TIMEOUT", *_OF_MESH) if name in settings]
    ):
        yield Mistake(idle[0], "MESH names a mesh that is already made", "give it to that mesh")
    inside = settings.get("CONSUL")
    if isinstance(inside, Mapping):
        for name in {str(option).upper() for option in inside} & settings.keys() & _BY_NAME.keys():
            yield Mistake(name, "it is given beside CONSUL and in it", "keep one of the two")
    for name, sources in _ONLY_WITH.items():
        if name in settings and not set(given) & set(sources):
            yield Mistake(name, "the source knows all its services by itself", f"it is for {' and '.join(sources)}")


# The sources ----------------------------------------------------------------------------------------------------------


def _from_config(value: Any, settings: Settings, options: dict[str, Any]) -> Mesh:
    return Mesh.from_file(*_several(value), **options)


def _from_xds(value: Any, settings: Settings, options: dict[str, Any]) -> Mesh:
    return Mesh.from_xds(None if value is True else value, declared=settings.get("DECLARED", ()), **options)


def _from_consul(value: Any, settings: Settings, options: dict[str, Any]) -> Mesh:
    if isinstance(value, Mapping):
        options |= {str(name).lower(): option for name, option in value.items()}
        value = options.pop("address", True)
    options.setdefault("declared", settings.get("DECLARED", ()))
    return Mesh.from_consul(None if value is True else value, **options)


def _from_static(value: Any, settings: Settings, options: dict[str, Any]) -> Mesh:
    return Mesh.static(value, **options)


def _given(value: Any, settings: Settings, options: dict[str, Any]) -> Mesh:
    made = _imported(value) if isinstance(value, str) else value
    if not isinstance(made, Mesh) and callable(made):
        made = made()
    if not isinstance(made, Mesh):
        raise ConfigurationError(f"MESHLIB: MESH: {value!r} gives a {type(made).__name__}, not a Mesh")
    made.faults.enabled = options.get("faults", made.faults.enabled)
    return made


_MAKERS = {"CONFIG": _from_config, "XDS": _from_xds, "CONSUL": _from_consul, "STATIC": _from_static, "MESH": _given}


def _imported(path: str) -> Any:
    """The object of `package.module:name` or `package.module.name`."""
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"MESHLIB: MESH: {path!r} cannot be imported: {error}") from error


def _several(paths: Any) -> tuple[str, ...]:
    return tuple(map(str, paths)) if isinstance(paths, (list, tuple)) else (str(paths),)
