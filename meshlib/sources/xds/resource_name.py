"""The name of a serialized xDS resource.

State-of-the-world responses hold resources whose name is only inside the body. In every xDS resource type the name is
field 1, so the transport can tell resources apart without knowing (or trusting) a decoder.
"""

from __future__ import annotations

from meshlib.model.protobuf_wire import MalformedMessageError, fields


def resource_name(body: bytes) -> str | None:
    """The resource's name (field 1, the last one wins as in protobuf), or None if there is none to read."""
    name: bytes | None = None
    try:
        for number, _, content in fields(body):
            if number == 1:
                name = content if isinstance(content, bytes) else None
        return name.decode() or None if name is not None else None
    except (MalformedMessageError, UnicodeDecodeError):
        return None
