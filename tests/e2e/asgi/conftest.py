"""The shop and the second service behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from e2e.asgi.shop import Shop
from parts.fast_backend import FastBackend


@pytest.fixture
def stock(fast_backend: Callable[..., FastBackend]) -> FastBackend:
    """The second service: echoes what it gets."""
    return fast_backend("stock")


@pytest.fixture
def shop(servers: Any, stock: FastBackend) -> Callable[..., Shop]:
    """`shop(framework=, server=, limit=, ...)`: a running shop."""

    def start(**options: Any) -> Shop:
        return servers.keep(Shop(servers.folder("shop"), stock.address, **options)).wait()

    return start
