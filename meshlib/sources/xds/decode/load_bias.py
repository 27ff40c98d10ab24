"""Load bias of a cluster, from its metadata: xDS has no such field, and what does not know it ignores it."""

from __future__ import annotations

from meshlib.model.cluster import LoadBias
from meshlib.model.metadata import Metadata, Value
from meshlib.model.report import ResourceError

NAMESPACE = "meshlib.load_bias"
_PATH = f'metadata.filter_metadata["{NAMESPACE}"]'
_MOST = 1000  # requests an endpoint is taken to have more; each is an object


def load_bias(metadata: Metadata) -> LoadBias | None:
    """The bias of the namespace `meshlib.load_bias`; None when there is no such namespace."""
    if NAMESPACE not in dict(metadata.namespaces):
        return None
    known = {name: _value(name, value) for name, value in metadata.namespace(NAMESPACE).items}
    default = LoadBias()
    found = LoadBias(
        int(known.get("requests", default.requests)),
        known.get("duration", default.duration),
        known.get("max_duration", max(default.max_duration, known.get("duration", 0.0))),
    )
    if found.max_duration < found.duration:
        raise ResourceError(f"{_PATH}.max_duration", "must not be less than duration")
    return found


def _value(name: str, value: Value) -> float:
    where = f"{_PATH}.{name}"
    if name not in ("requests", "duration", "max_duration"):
        raise ResourceError(where, "is not known; valid are duration, max_duration, requests")
    if not isinstance(value, float) or isinstance(value, bool):
        raise ResourceError(where, "must be a number")
    if name == "requests" and not (1 <= value <= _MOST and value.is_integer()):
        raise ResourceError(where, f"must be a whole number from 1 to {_MOST}, is {value:g}")
    if not value > 0:
        raise ResourceError(where, f"must be a number of seconds above 0, is {value:g}")
    return value
