"""What only compiling finds: configuration that decodes well and still cannot be followed (a formatter, weights)."""

from __future__ import annotations

import random

from meshlib.engine.runtime import Runtime
from meshlib.model.report import Issue, ResourceError
from meshlib.model.snapshot import Snapshot


def compile_issue(snapshot: Snapshot) -> Issue | None:
    """The first thing a mesh would refuse in this snapshot, None when it would take it."""
    try:
        Runtime(random.Random(0)).compile(snapshot, None)  # noqa: S311  nothing is drawn
    except ResourceError as error:
        return Issue("error", error.resource, error.path, error.reason)
    return None
