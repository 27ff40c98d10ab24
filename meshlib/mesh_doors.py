"""The doors of a mesh: what applications call through. Each is made when first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.http.factory import HttpFactory
    from meshlib.mesh import Mesh


class Doors:
    """What `Mesh` has of factories."""

    @cached_property
    def http(self: Mesh) -> HttpFactory:  # type: ignore[misc]  # only Mesh is made of this class
        """Clients and transports for httpx and httpx2."""
        from meshlib.http.factory import HttpFactory

        return HttpFactory(self)
