"""Faults: what one mesh injects, all filters together: the switch, the counts, what code adds, who is told.

A fault that somebody forgot looks like an outage, so there is one switch for all of them, and a line in the log for
each configuration that injects: with its first fault, then with every `TELL_EVERY` more, at most one in `TELL_PAUSE`
seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from meshlib.engine.events import Event, FaultInjected
from meshlib.model.fault import HttpFault
from meshlib.model.matchers import FractionalPercent
from meshlib.model.metadata import EMPTY_STRUCT, Struct, Value
from meshlib.policy.fault import Fault
from meshlib.state.counter import Counter

if TYPE_CHECKING:
    from meshlib.engine.fault import FaultFilter
    from meshlib.engine.filters import Filter
    from meshlib.model.request import RequestHead

__all__ = ["AddedFault", "Faults"]

TELL_EVERY = 1000
TELL_PAUSE = 10.0
_MAX_CALLERS = 1000  # whose names come from requests
_STATS = ("aborts_injected", "delays_injected", "faults_overflow", "response_rl_injected")
Emit = Callable[[Callable[[], Event]], None]
log = logging.getLogger("meshlib")


class Faults:
    """`mesh.faults`. `enabled` False injects nothing any more, whoever configured it; what is waiting waits on."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.added: tuple[AddedFault, ...] = ()
        self.active: dict[object, None] = {}
        self._emit: Emit | None = None
        self._values: dict[str, Value] = {}
        self._runtime = EMPTY_STRUCT
        self._counters: dict[str, Counter] = {}
        self.begin(None)

    def inject(self, service: str, fault: Fault | HttpFault) -> AddedFault:
        """Add a fault to the calls to a service, by the name it is called by (with or without port) or its cluster's,
        until it is removed. The configuration is not touched. It comes before the filters of the route.
        """
        added = AddedFault(self, service, fault if isinstance(fault, HttpFault) else fault.config())
        self.added = (*self.added, added)
        return added

    def filter(self, fault: Fault | HttpFault, name: str) -> FaultFilter:
        """A filter of this mesh; `name` is for whoever is told."""
        from meshlib.engine.fault import FaultFilter

        return FaultFilter(fault if isinstance(fault, HttpFault) else fault.config(), self, name)

    def stats(self) -> dict[str, int]:
        """Envoy's counters, and the gauge `fault.active_faults`. Empty as long as there has been no fault."""
        found = {f"fault.{name}": counter.value for name, counter in list(self._counters.items())}
        if not any(found.values()):
            return {}
        return {**found, "fault.active_faults": len(self.active)}

    # ------------------------------------------------------------------ for the filters

    def before(self, filters: tuple[Filter, ...], authority: str, cluster: str) -> tuple[Filter, ...]:
        """The filters of a call with those from code before them."""
        return (*(added.filter for added in self.added if added.concerns(authority, cluster)), *filters)

    def begin(self, emit: Emit | None) -> None:
        """A process begins: nothing is under way, and nothing counted. What code has said stays."""
        self.active = {}
        self._emit = emit
        self._counters = {name: Counter() for name in _STATS}

    def follow(self, runtime: Struct) -> None:
        """The values of runtime keys from now on."""
        self._runtime, self._values = runtime, dict(runtime.items)

    def fraction(self, key: str, numerator: int, denominator: int) -> float:
        """A share, where the runtime says no other."""
        if key not in self._values:
            return min(1.0, numerator / denominator)
        return FractionalPercent(numerator, denominator, key).resolved(self._runtime).fraction

    def integer(self, key: str, default: int) -> int:
        """A number, where the runtime says no other."""
        said = self._values.get(key)
        return int(said) if isinstance(said, float) and said >= 0 and said.is_integer() else default

    def count(self, name: str, caller: str = "") -> None:
        """Count one more; `caller` is who called, for the counts by caller."""
        self._counters[name].add()
        if caller and len(self._counters) < _MAX_CALLERS:
            self._counters.setdefault(f"{caller}.{name}", Counter()).add()

    def tell(self, source: FaultFilter, kind: str, head: RequestHead, now: float) -> None:
        """Leave a trace of a fault, if one is due."""
        count = source.count
        count.add()
        total, told = count.value, source.told
        if told is not None and (total - told[0] < TELL_EVERY or now - told[1] < TELL_PAUSE):
            return
        source.told = (total, now)
        log.warning("fault injection: %s: %d so far, the last: %s of %s", source.name, total, kind, head.path_only)
        if self._emit is not None:
            metadata = source.config.filter_metadata
            self._emit(lambda: FaultInjected(now, source.name, kind, total, head.path_only, metadata))


def enabled_by(word: str) -> bool:
    """Whether the environment (`MESHLIB_FAULTS`) lets faults be injected: unless it says off, 0, false or no."""
    return word.strip().lower() not in ("off", "0", "false", "no")


class AddedFault:
    """A fault that code has added; `remove` it, or use it in a `with`."""

    def __init__(self, faults: Faults, service: str, config: HttpFault) -> None:
        self.service = service
        self.filter = faults.filter(config, f"{service} (from code)")
        self._faults = faults

    def concerns(self, authority: str, cluster: str) -> bool:
        """Whether a call is one to the service."""
        wanted = self.service.lower()
        given = authority.lower()
        return wanted in (given, given.rpartition(":")[0] or given, cluster)

    def remove(self) -> None:
        """Inject it no more; calls that are waiting wait on. Idempotent."""
        self._faults.added = tuple(each for each in self._faults.added if each is not self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.remove()
