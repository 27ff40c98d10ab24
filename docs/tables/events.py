"""The events, from `meshlib.engine.events`."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import get_args

from meshlib.engine.events import Event
from tables import markdown


def table() -> str:
    """A row per event."""
    rows = [
        (
            f"`{kind.__name__}`",
            markdown.code(field.name for field in fields(kind)),
            " ".join((inspect.getdoc(kind) or "").split()),
        )
        for kind in get_args(Event)
    ]
    return markdown.table(("event", "fields", "meaning"), rows)
