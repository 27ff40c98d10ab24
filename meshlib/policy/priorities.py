"""How critical a request is, and how much of a limit it may fill for that."""

from __future__ import annotations

from meshlib.model.request import RequestHead
from meshlib.model.shedding import Priorities


class Criticality:
    """`Priorities`, ready to be asked."""

    __slots__ = ("_callers", "_default", "_paths", "_shares", "header")

    def __init__(self, config: Priorities) -> None:
        self._shares = dict(config.shares)
        self.header = config.header.lower()
        self._paths = tuple((prefix, self._shares[name]) for prefix, name in config.paths)
        self._callers = {caller: self._shares[name] for caller, name in config.callers}
        self._default = self._shares[config.default]

    def share(self, head: RequestHead) -> float:
        """The part of a limit, from 0 to 1, that the request may fill."""
        told = head.get_all(self.header) if self.header else None
        if told and (share := self._shares.get(told[0].strip().lower())) is not None:
            return share
        if self._paths:
            path = head.path_only
            for prefix, share in self._paths:
                if below(path, prefix):
                    return share
        return self._callers.get(head.peer, self._default) if self._callers else self._default


def below(path: str, prefix: str) -> bool:
    """Whether a path is `prefix` or goes on from it on a segment's border."""
    return path.startswith(prefix) and (len(path) == len(prefix) or prefix.endswith("/") or path[len(prefix)] == "/")
