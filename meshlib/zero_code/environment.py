"""The environment variables of `meshlib run`, and the settings (`meshlib.settings`) they stand for."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshlib.engine.faults import enabled_by
from meshlib.errors import ConfigurationError

_BOOTSTRAP = ("GRPC_XDS_BOOTSTRAP", "GRPC_XDS_BOOTSTRAP_CONFIG")
_SOURCES = ("CONFIG", "XDS", "CONSUL", "MESH")  # STATIC has no text


@dataclass(frozen=True, slots=True)
class _Variable:
    read: Callable[[str], Any]
    meaning: str


def _list(separator: str) -> Callable[[str], list[str]]:
    return lambda text: [part.strip() for part in text.split(separator) if part.strip()]


def _flag(text: str) -> str | bool:
    if text.lower() in ("0", "false", "no"):
        return False  # which no source can be
    return True if text.lower() in ("1", "true", "yes") else text


_VARIABLES = {
    "CONFIG": _Variable(_list(os.pathsep), "files or folders of configuration"),
    "XDS": _Variable(_flag, "host:port of an xDS server, or 1 for the bootstrap's"),
    "CONSUL": _Variable(_flag, "host:port or URL of a Consul agent, or 1 for that of CONSUL_HTTP_ADDR"),
    "MESH": _Variable(str, "a mesh, or what makes one: package.module:name"),
    "DECLARED": _Variable(_list(","), "services to ask for at start-up, separated by commas"),
    "UNKNOWN_HOSTS": _Variable(str, "pass_through (default) or reject"),
    "FETCH_TIMEOUT": _Variable(float, "seconds a call waits for configuration (15)"),
    "NAME_SERVERS": _Variable(_list(","), "DNS servers in place of the system's resolver, separated by commas"),
    "LOCALITY": _Variable(str, "where the process runs: region/zone/sub_zone"),
    "LOCAL_CLUSTER": _Variable(str, "the cluster the process is an endpoint of"),
    "FAULTS": _Variable(enabled_by, "off: no faults are injected, whoever configured them"),
    "FAILOVER_TIMEOUT": _Variable(float, "seconds until a priority that cannot be connected to is left (never)"),
    "RATE_LIMITS": _Variable(_list(","), "limits of the server, as 100/minute, separated by commas"),
    "SHED": _Variable(_list(","), "load shedding of the server, as adaptive or bulkhead 100, separated by commas"),
    "READINESS_PATH": _Variable(str, "path answered 200, or 503 while draining"),
    "DRAIN_SECONDS": _Variable(float, "how long to go on serving after SIGTERM"),
}
_PREFIX = "MESHLIB_"
_RUNNING = "MESHLIB_RUN"  # set by the command, so that a program can tell


def described() -> str:
    """A line for each variable that has no option."""
    rest = (name for name in _VARIABLES if name not in ("CONFIG", "XDS", "CONSUL"))
    return "".join(f"  {'':17} MESHLIB_{name:<15} {_VARIABLES[name].meaning}\n" for name in rest)


def settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings an environment stands for. Raises ConfigurationError for a value that cannot be read, a misspelt
    variable, and when nothing says where configuration comes from.
    """
    found = {}
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable == _RUNNING or not text:
            continue
        name = variable.removeprefix(_PREFIX)
        if name in _VARIABLES:
            found[name] = _read(variable, name, text)
        elif near := difflib.get_close_matches(name, _VARIABLES, 1):  # what is like none of them is somebody else's
            raise ConfigurationError(f"{variable}: no such setting; did you mean {_PREFIX}{near[0]}?")
    if not any(name in found for name in _SOURCES):
        if not any(environment.get(name) for name in _BOOTSTRAP):
            raise ConfigurationError(
                "nothing says where the mesh's configuration comes from: set MESHLIB_CONFIG (files), MESHLIB_XDS or "
                "GRPC_XDS_BOOTSTRAP (a control plane), or MESHLIB_CONSUL"
            )
        found["XDS"] = True  # the bootstrap
    return found


def check(environment: Mapping[str, str]) -> None:
    """Raise ConfigurationError unless `settings` can be read, are what they may be, and name files that exist."""
    from meshlib.settings import mistakes

    found = settings(environment)
    wrong = mistakes(found)
    if wrong:
        raise ConfigurationError("; ".join(f"{_PREFIX}{mistake}" for mistake in wrong))
    for path in found.get("CONFIG", ()):
        if not Path(path).exists():
            raise ConfigurationError(f"MESHLIB_CONFIG: {path}: no such file or folder")


def launched(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the program: our `sitecustomize` stands first on its path, and files are named for good,
    because the program may read them from another folder (`gunicorn --chdir`).
    """
    ours, known = str(Path(__file__).parent / "sitecustomize"), environment.get("PYTHONPATH", "")
    path = [entry for entry in known.split(os.pathsep) if entry != ours] if known else []  # "" is the current folder
    found = {**environment, "PYTHONPATH": os.pathsep.join([ours, *path]), _RUNNING: "1"}
    if files := _VARIABLES["CONFIG"].read(environment.get("MESHLIB_CONFIG", "")):
        found["MESHLIB_CONFIG"] = os.pathsep.join(str(Path(file).absolute()) for file in files)
    return found


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether the process was started by `meshlib run`."""
    return environment.get(_RUNNING) == "1"


def _read(variable: str, name: str, text: str) -> Any:
    try:
        return _VARIABLES[name].read(text)
    except ValueError:
        raise ConfigurationError(f"{variable}: {text!r} is no number ({_VARIABLES[name].meaning})") from None
