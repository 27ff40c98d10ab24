"""A checked value → a protobuf message."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from meshlib.sources.files.located import FieldPath
from meshlib.sources.files.schema import Problem, check_message, lacks_value
from meshlib.sources.files.type_registry import TYPE_URL_PREFIX, TYPED_STRUCT, descriptor_of, message_class
from meshlib.sources.xds.decode.added_fields import parse_json


def to_message(value: Any, type_name: str, path: FieldPath = ()) -> tuple[Message | None, list[Problem]]:
    """The message of a value, or None with the errors; degraded findings come with the message."""
    cls = message_class(type_name)
    if cls is None:
        raise LookupError(f"{type_name} is not in the installed xds-protos")
    problems = list(check_message(value, descriptor_of(cls), path))
    if any(problem.severity == "error" for problem in problems):
        return None, problems
    if problems:  # only types that are not known here: the standard envelope for such is a TypedStruct
        message_class(TYPED_STRUCT)
    # protobuf takes "@type" out of the value and puts it back: of one that threads share, two would meet it without.
    own = _own(value)
    try:
        return parse_json(own, cls), problems
    except (json_format.ParseError, ValueError, TypeError, OverflowError, RecursionError) as error:
        return None, [*problems, Problem(path, f"protobuf refuses it: {str(error).splitlines()[0]:.200}")]


def _own(value: Any) -> Any:
    """A copy of the value, with types that are not known here in a TypedStruct, and the defaults of values left out."""
    if isinstance(value, list):
        return [_own(item) for item in value]
    if not isinstance(value, dict):
        return value
    url = value.get("@type")
    if isinstance(url, str):
        cls = message_class(url.rpartition("/")[2])
        if cls is None:
            content = {key: item for key, item in value.items() if key != "@type"}
            return {"@type": TYPE_URL_PREFIX + TYPED_STRUCT, "type_url": url, "value": content}
        if lacks_value(value, descriptor_of(cls)):
            return {"@type": url, "value": json_format.MessageToDict(cls())}
    return {key: _own(item) for key, item in value.items()}
