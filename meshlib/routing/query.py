"""Query parameters as Envoy reads them for matching and hashing: split at `&` and the first `=`, nothing decoded."""

from __future__ import annotations


def first_parameter(query: str, name: str) -> str | None:
    """The first value of a parameter: `""` when it stands without `=`, None when it is not there."""
    if name not in query:
        return None
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == name and pair:
            return value
    return None
