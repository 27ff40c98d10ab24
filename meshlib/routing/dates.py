"""Dates in the format of Envoy's `START_TIME`: `strftime` with parts of seconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

_SPECIFIER = re.compile(r"%(?:E(?P<seconds>[0-9])S|(?P<digits>[1-9])?f|E(?P<fraction>[0-9])f|(?P<other>E?[A-Za-z%]))")
_UTC_DEFAULT, _LOCAL_DEFAULT = "%Y-%m-%dT%H:%M:%E3SZ", "%Y-%m-%dT%H:%M:%E3S%z"


def compile_date(text: str, *, local: bool) -> Callable[[float], str]:
    """What writes seconds of the epoch as `text` says (empty: ISO 8601 with milliseconds), in UTC or in local time.

    Besides `strftime`'s: `%s` seconds of the epoch, `%f` nine digits of the second's fraction, `%3f` three of them,
    `%E3S` seconds with three digits of the fraction, `%Ez` the zone as `+00:00`. The fraction is cut, not rounded.
    """
    wanted = text or (_LOCAL_DEFAULT if local else _UTC_DEFAULT)

    def write(seconds: float) -> str:
        whole, nanoseconds = divmod(int(seconds * 1e9), 10**9)
        date = datetime.fromtimestamp(whole, UTC)
        if local:
            date = date.astimezone()
        return _SPECIFIER.sub(lambda found: _written(found, date, whole, f"{nanoseconds:09}"), wanted)

    return write


def _written(found: re.Match[str], date: datetime, whole: int, fraction: str) -> str:
    if found["seconds"] is not None:
        digits = int(found["seconds"])
        return f"{date:%S}" + (f".{fraction[:digits]}" if digits else "")
    if found["fraction"] is not None:
        return fraction[: int(found["fraction"])]
    match found["other"]:
        case None:
            return fraction[: int(found["digits"] or 9)]
        case "s":
            return str(whole)
        case "Ez":
            zone = f"{date:%z}"
            return f"{zone[:3]}:{zone[3:]}"
    return date.strftime("%" + found["other"][-1])
