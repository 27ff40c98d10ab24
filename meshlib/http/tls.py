"""TLS of an `https` URL; that of clusters is `meshlib.identity.upstream`."""

from __future__ import annotations

import ssl
from functools import lru_cache


@lru_cache(maxsize=1)
def default_context() -> ssl.SSLContext:
    """For an `https` URL whose cluster has no TLS of its own: the system's authorities, and the URL's host name."""
    return ssl.create_default_context()
