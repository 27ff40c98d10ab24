"""The story every protocol goes through: certificates renewed and authorities replaced while calls go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable

from e2e.mtls.workloads import Pair
from meshlib.identity.dev_ca import DevCA

ROTATIONS = 110
TRUST_CHANGES = 3
_BETWEEN = 0.01
_PATIENCE = 30.0


class Caller:
    """Counts the calls of one caller, who makes them one after the other."""

    def __init__(self) -> None:
        self.done = 0
        self.failures: list[BaseException] = []

    def one(self, call: Callable[[], object]) -> None:
        """Make one call."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            self.failures.append(error)
        self.done += 1

    async def one_of(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make one call on an event loop."""
        try:
            await call()
        except Exception as error:  # noqa: BLE001
            self.failures.append(error)
        self.done += 1


class Load:
    """All callers."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.stop = threading.Event()

    def caller(self) -> Caller:
        """Another one."""
        self.callers.append(Caller())
        return self.callers[-1]

    @property
    def done(self) -> int:
        return sum(caller.done for caller in self.callers)

    @property
    def failures(self) -> list[BaseException]:
        return [failure for caller in self.callers for failure in caller.failures]

    def until_all_went_on(self) -> None:
        """Wait until every caller has ended the call it was at, and made another: nothing of before is under way."""
        wanted = [caller.done + 2 for caller in self.callers]
        deadline = time.monotonic() + _PATIENCE
        while any(caller.done < count for caller, count in zip(self.callers, wanted, strict=False)):
            assert time.monotonic() < deadline, "no calls are made any more"
            threading.Event().wait(0.005)


def rotate(pair: Pair, load: Load, on_removed: Callable[[DevCA], None], before_removal: Callable[[DevCA], None]) -> int:
    """110 certificate rotations, among them 3 changes of the authority (add it, move to it, remove the old one).

    Before and after an old authority goes the callbacks are called with it. Returns how many certificates were renewed.
    """
    renewed = 0
    for change in range(TRUST_CHANGES + 1):
        while renewed < ROTATIONS * (change + 1) // (TRUST_CHANGES + 1):
            (pair.client if renewed % 2 else pair.server).renew()
            renewed += 1
            threading.Event().wait(_BETWEEN)
        pair.until_taken()
        load.until_all_went_on()
        if change < TRUST_CHANGES:
            old, new = pair.authority, DevCA.new()
            pair.trust(old, new)
            load.until_all_went_on()
            pair.move_to(new)
            load.until_all_went_on()
            before_removal(old)
            pair.trust(new)
            on_removed(old)
            load.until_all_went_on()
    return renewed
