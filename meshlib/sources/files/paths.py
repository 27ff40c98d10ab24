"""Which files count, and their text: recursive, without what editors and operating systems leave lying around."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from meshlib.model.report import Issue

SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Signature:
    """What changes when a file is written, replaced or reached through another link; -1 in `size`: not there."""

    inode: int
    size: int
    modified: int
    changed: int


MISSING = Signature(0, -1, 0, 0)


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """The files named, and those in the directories named, in a stable order, each once.

    In a directory a name that begins with a dot is passed over (`.swp`, `.#lock`, the `..data` folders of a Kubernetes
    ConfigMap, whose visible links are followed), and so is one that ends in `~` or in anything but a known suffix.
    A file that is named itself counts whatever it is called, also when it is missing.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        for file in sorted(_walk(path)) if path.is_dir() else (path,):
            found.setdefault(file)
            if len(found) >= MAX_FILES:
                return list(found)
    return list(found)


def _walk(folder: Path) -> Iterable[Path]:
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files if is_configuration(name))


def is_configuration(name: str) -> bool:
    """Whether a file of this name in a directory is read."""
    return not name.startswith((".", "#")) and name.lower().endswith(SUFFIXES)


def signature(file: Path) -> Signature:
    """The file's signature, links followed."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return MISSING
    return Signature(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_text(file: Path) -> str | Issue:
    """The file's text, or the issue that says why it cannot be had."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            return _issue(file, f"larger than {MAX_FILE_BYTES // 2**20} MiB", "split it")
        if not file.is_file():
            return _issue(file, "neither a file nor a directory")
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return _issue(file, "no such file or directory", f"looked for {file.absolute()}")
    except OSError as error:
        return _issue(file, error.strerror or str(error), "make it readable for this process")
    except UnicodeDecodeError as error:
        return _issue(file, f"not UTF-8: byte {error.start}", "save it as UTF-8")


def _issue(file: Path, reason: str, fix: str = "") -> Issue:
    return Issue("error", "file", "", reason, fix, str(file))
