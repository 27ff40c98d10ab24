"""Go servers the tests use: their sources in tests/servers/NAME, their binaries in a cache outside the tree.

A binary is keyed by a hash of its sources, so that a change of the source is another binary and an old one is never run
by mistake. ``tests/servers/build`` writes the cache, the parts' detection reads it: both ask this file for the path.
"""

import hashlib
import os
import platform
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "servers"
SOURCE_PATTERNS = ("*.go", "go.mod", "go.sum")


def cache_dir() -> Path:
    """``$MESHLIB_SERVERS_DIR``, else ``meshlib-servers`` in the user's cache folder."""
    if named := os.environ.get("MESHLIB_SERVERS_DIR"):
        return Path(named).expanduser().absolute()
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(user_cache).expanduser() / "meshlib-servers"


def names() -> list[str]:
    """The servers whose sources are in the tree."""
    return sorted(module.parent.name for module in SOURCES.glob("*/go.mod"))


def binary(name: str) -> Path:
    """Where the binary of these sources is, or will be once built."""
    return cache_dir() / name / _source_key(SOURCES / name) / name


def built(name: str) -> str | None:
    """The path of the built server, or None."""
    if not (SOURCES / name / "go.mod").exists():
        return None
    path = binary(name)
    return str(path) if path.exists() else None


def _source_key(folder: Path) -> str:
    digest = hashlib.sha256(f"{platform.system()}-{platform.machine()}".encode())
    for path in sorted(path for pattern in SOURCE_PATTERNS for path in folder.glob(pattern)):
        content = path.read_bytes()
        digest.update(f"{path.name}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()[:16]
