"""Decorators: the mesh's policies on any function, sync or async.

`mesh.guard("payments")` puts a function under the route of a service, with all that the control plane says of it.
The others are policies one by one, and need no mesh:

    @fallback(cached_price)
    @retry(3, on=ConnectionError)
    @timeout(0.5)
    @circuit_breaker(fail_max=5, reset_timeout=30)
    @rate_limit("100/second")
    @bulkhead(10)
    def price(item: str) -> int: ...

The order in the text is the order in which a call meets them: here each attempt has half a second, each counts for the
breaker, and only what all attempts have failed at is answered from the cache. The function keeps its type.

With `name=` and `mesh=` a policy follows the mesh's configuration: the runtime key `meshlib.<name>.retry.attempts`
(`timeout.seconds`, `hedge.delay`, `circuit_breaker.fail_max`, `rate_limit.limit`, `bulkhead.limit`, ...) replaces what
the decorator says, from the next call on.
"""

from __future__ import annotations

from meshlib.decorators.failure import current_failure
from meshlib.decorators.modes import for_tests
from meshlib.decorators.pipeline import stages_of
from meshlib.decorators.stages.breaking import circuit_breaker
from meshlib.decorators.stages.bulkheads import bulkhead
from meshlib.decorators.stages.falling_back import fallback
from meshlib.decorators.stages.hedging import hedge
from meshlib.decorators.stages.limiting import rate_limit
from meshlib.decorators.stages.retrying import retry
from meshlib.decorators.stages.timing import timeout

__all__ = [
    "bulkhead",
    "circuit_breaker",
    "current_failure",
    "fallback",
    "for_tests",
    "hedge",
    "rate_limit",
    "retry",
    "stages_of",
    "timeout",
]
