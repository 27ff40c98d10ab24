"""The story every protocol goes through: certificates renewed and authorities replaced while calls go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from e2e.mtls.workloads import Pair
from meshlib.identity.dev_ca import DevCA

ROTATIONS = 110
TRUST_CHANGES = 3
_BETWEEN = 0.01
_SETTLE = 0.1  # calls already on their way under the certificate before are over, on a busy machine as well


@dataclass
class Load:
    """What callers on several threads report."""

    done: int = 0
    failures: list[BaseException] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def one(self, call: Callable[[], object]) -> None:
        """Make one call."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            self.failures.append(error)
        self.done += 1

    def until_more(self, calls: int = 20) -> None:
        """Wait until calls have gone on."""
        wanted = self.done + calls
        for _ in range(3000):
            if self.done >= wanted or self.failures:
                return
            threading.Event().wait(0.01)
        raise AssertionError("no calls are made any more")


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
        load.until_more()
        if change < TRUST_CHANGES:
            old, new = pair.authority, DevCA.new()
            pair.trust(old, new)
            pair.move_to(new)
            load.until_more()
            threading.Event().wait(_SETTLE)
            before_removal(old)
            pair.trust(new)
            on_removed(old)
            load.until_more()
    return renewed
