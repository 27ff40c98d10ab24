"""Which HTTP library a transport serves. httpx and httpx2 have the same API and share no class, so the one core asks
this object for the classes; nothing else in meshlib knows which of the two it is.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from meshlib.errors import ConfigurationError

LibraryName = Literal["httpx", "httpx2"]


class Library:
    """The classes of `httpx` or `httpx2` the core needs."""

    __slots__ = ("ByteStream", "Request", "Response", "module", "name")

    def __init__(self, name: LibraryName, module: ModuleType) -> None:
        self.name = name
        self.module = module
        self.Request: Any = module.Request
        self.Response: Any = module.Response
        self.ByteStream: Any = module.ByteStream

    def wrote(self, function: Any) -> bool:
        """Whether a function is the library's own, and not put in its place by something else (an instrumentation)."""
        written_in: str = getattr(function, "__globals__", {}).get("__name__", "")
        return written_in.partition(".")[0] == self.name


@lru_cache(maxsize=2)
def library(name: LibraryName) -> Library:
    """Import a library. Raises ConfigurationError naming the extra to install when it is missing."""
    try:
        return Library(name, import_module(name))
    except ImportError as error:
        raise ConfigurationError(f"{name} is not installed: pip install 'meshlib[{name}]'") from error
