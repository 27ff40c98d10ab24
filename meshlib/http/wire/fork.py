"""What a pool does in a forked child: forget.

The child holds copies of the parent's sockets. It must not write to them (a TLS close_notify from the child ends
the parent's session), must not shut them down, and must not touch the event loop's selector, which the two share.
So a pool only lets go of what it inherited: closing the file descriptors, which the garbage collector does, leaves
the parent's connections alone. The hook runs in the child before any other of its code, so no request pays for a
check.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """Something a forked child must not use as it is."""

    def forget_inherited(self) -> None:
        """Drop connections, waiters and locks of the parent without acting on them."""
        ...


_alive: weakref.WeakSet[Inherited] = weakref.WeakSet()


def forgets_on_fork(pool: Inherited) -> None:
    """From now on the pool is told in every forked child."""
    _alive.add(pool)


def _in_child() -> None:
    for pool in list(_alive):
        pool.forget_inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
