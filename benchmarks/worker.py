"""The frame of a measuring process: options in as JSON, pinned, results out as one line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.cores import pin


def run(measure: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Measure as the first argument says; the last line printed is the result."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    pin(options["core"])
    print(json.dumps(measure(options)))
