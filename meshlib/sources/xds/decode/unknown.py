"""Fields that a message was sent with and that its class does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def unknown_fields(message: Any) -> Iterator[int]:
    """The numbers of a message's unknown fields."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    for field in UnknownFieldSet(message):  # type: ignore[attr-defined]  # its stub lacks __iter__
        yield field.field_number
