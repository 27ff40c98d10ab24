"""Bodies of direct responses: as they stand, or formatted (`SubstitutionFormatString`)."""

from __future__ import annotations

from meshlib.model.route import DirectResponseAction, JsonFormat
from meshlib.routing.formatters import Format, compile_format, compile_json
from meshlib.routing.located import at


def compile_body(action: DirectResponseAction) -> Format | None:
    """What makes the body, None where it is the action's own."""
    given = action.body_format
    if given is None:
        return None
    with at("body_format"):
        if isinstance(given, JsonFormat):
            return compile_json(given.template, omit_empty=given.omit_empty)
        made = compile_format(given.text, "" if given.omit_empty else "-")
        return made if not isinstance(made, str) else lambda scene: made


def content_type_of(action: DirectResponseAction) -> bytes:
    """The type of a direct response's body, where no header of the route says another: Envoy's defaults."""
    if action.content_type:
        return action.content_type.encode()
    return b"application/json" if isinstance(action.body_format, JsonFormat) else b"text/plain"
