"""Text as it stands on the wire.

Header bytes and request targets are handled as latin-1 text, one character per byte. What configuration says is
Unicode, and Envoy compares its UTF-8 bytes: `as_wire` gives configured text the same one-character-per-byte shape.
"""

from __future__ import annotations

import string

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def as_wire(text: str) -> str:
    """Configured text with one character per UTF-8 byte."""
    return text if text.isascii() else text.encode().decode("latin-1")


def wire_bytes(text: str) -> bytes:
    """The bytes of wire text; text that was never on a wire (a character above 255) is taken as UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def ascii_lower(text: str) -> str:
    """Lower case of A-Z only: `str.lower` would also fold bytes that are not letters on the wire."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)
