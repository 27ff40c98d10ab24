"""What a guard was told: where its calls belong, and how to read what its function does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from meshlib.context import CallContext, CallHead
from meshlib.model.request import RequestHead

Classify = Callable[[Any, Exception | None], int | None]
Headers = Mapping[str, str] | Callable[..., Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """The request a guarded call stands for, and the reading of its results."""

    scheme: str
    authority: str
    path: str
    method: str
    headers: Headers
    classify: Classify | None
    exclude: tuple[type[Exception], ...]
    replayable: bool

    def head(self, context: CallContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RequestHead:
        """The request of one call."""
        given = self.headers(*args, **kwargs) if callable(self.headers) else self.headers
        headers = [(b"host", self.authority.encode("latin-1"))]
        headers += [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in given.items()]
        if context.headers:
            headers = context.added_to(headers)
        return CallHead(self.method, self.scheme, self.authority, self.path, headers)


def split_service(service: str, path: str | None) -> tuple[str, str, str]:
    """Scheme, authority and path of a service's name ("payments") or URL ("https://payments/v2")."""
    parts = urlsplit(service if "://" in service else f"http://{service}")
    if not parts.netloc:
        raise ValueError(f"{service!r} names no service; give a host the mesh knows, as 'payments', or a URL")
    own = f"{parts.path}?{parts.query}" if parts.query else parts.path
    chosen = path if path is not None else own or "/"
    if not chosen.startswith("/"):
        raise ValueError(f"path {chosen!r} does not begin with '/'")
    return parts.scheme, parts.netloc, chosen
