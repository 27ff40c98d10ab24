"""Header mutations of routes, virtual hosts and route configurations (`envoy.config.core.v3.HeaderValueOption`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["NO_MUTATIONS", "AppendAction", "HeaderMutations", "HeaderValueOption"]

AppendAction = Literal["APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"]


@dataclass(frozen=True, slots=True)
class HeaderValueOption:
    """One header to add. `name` is lower case. `value` may hold Envoy's `%...%` formatters."""

    name: str
    value: str
    append_action: AppendAction = "APPEND_IF_EXISTS_OR_ADD"
    keep_empty_value: bool = False


@dataclass(frozen=True, slots=True)
class HeaderMutations:
    """What one level (route, virtual host, route configuration) does to headers: removals come before additions,
    as in Envoy's `HeaderParser::evaluateHeaders`.
    """

    add: tuple[HeaderValueOption, ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


NO_MUTATIONS = HeaderMutations()
