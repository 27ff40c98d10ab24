"""Between the authorities calls use and the names listeners are asked for (gRFC A27, A47)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from urllib.parse import quote

from meshlib.model.listener import Listener
from meshlib.model.snapshot import Snapshot

_PORT = re.compile(r":[0-9]+$")


class ListenerNames:
    """`template` is the bootstrap's `client_default_listener_resource_name_template`; `%s` stands for the authority.

    A snapshot of the source names API listeners by authority, because that is what calls look them up by. `with_port`:
    the control plane knows listeners with a port only, and an authority without one stands for the default ports.
    """

    def __init__(self, template: str = "%s", *, with_port: bool = False) -> None:
        self._template = template or "%s"
        self._with_port = with_port
        self._authorities: dict[str, set[str]] = {}

    def spelled(self, authority: str) -> tuple[str, ...]:
        """The authorities to ask for where a call names this one."""
        if not self._with_port or _PORT.search(authority):
            return (authority,)
        return (f"{authority}:80", f"{authority}:443")

    def add(self, authority: str) -> str:
        """The resource name to ask for. In an xdstp name the authority is percent-encoded."""
        text = quote(authority, safe="") if self._template.startswith("xdstp:") else authority
        name = self._template.replace("%s", text)
        self._authorities.setdefault(name, set()).add(authority)
        return name

    def discard(self, name: str) -> set[str]:
        """Forget a resource name; returns the authorities that asked for it."""
        return self._authorities.pop(name, set())

    def by_authority(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with listeners and absences under the authorities they were asked for."""
        if self._template == "%s":
            return snapshot
        absent = {authority for name in snapshot.absent for authority in self._authorities.get(name, ())}
        return replace(snapshot, listeners=self._renamed(snapshot.listeners), absent=frozenset(absent))

    def _renamed(self, listeners: Mapping[str, Listener]) -> Mapping[str, Listener]:
        return MappingProxyType(
            {
                authority: replace(listener, name=authority)
                for name, listener in listeners.items()
                for authority in sorted(self._authorities.get(name, {name}))
            }
        )
