"""A flow whose command at hand somebody has obeyed already: the rest of it, for a driver."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from meshlib.engine.commands import Command, Flow


class Resumed(Generator[Command, Any, None]):
    """Gives `command` once more, then goes on with the flow."""

    def __init__(self, flow: Flow, command: Command) -> None:
        self._flow = flow
        self._command: Command | None = command

    def send(self, value: Any) -> Command:
        """The command at hand first; whatever is sent for that is nobody's."""
        command, self._command = self._command, None
        return self._flow.send(value) if command is None else command

    def throw(self, *raised: Any) -> Command:
        """Into the flow itself."""
        return self._flow.throw(*raised)
