"""CoDel for queues of requests: a queue that is never short is a queue that only adds latency.

After K. Nichols and V. Jacobson, "Controlling Queue Delay" (ACM Queue, 2012), in the form that servers use (B. Maurer,
"Fail at Scale", ACM Queue, 2015): requests are not dropped one by one but by how long they waited.
"""

from __future__ import annotations

import math
import threading


class CoDel:
    """Whether requests that waited are to be dropped. Thread-safe; times are seconds, `now` monotonic.

    In every `interval` the shortest wait counts. Was it longer than `target`, then the queue stood, and until an
    interval has shown otherwise every request that waited for more than twice the `target` is dropped.

    `shortest` is the shortest wait of the interval that ends at `over`: where that is 0 already, a request that did not
    wait need not be told of.
    """

    __slots__ = ("_interval", "_lock", "_most", "_target", "over", "overloaded", "shortest")

    def __init__(self, target: float, interval: float) -> None:
        self._target = target
        self._most = 2.0 * target
        self._interval = interval
        self.over = -math.inf
        self.shortest = math.inf
        self._lock = threading.Lock()
        self.overloaded = False

    def drops(self, waited: float, now: float) -> bool:
        """Whether a request that is taken out of the queue now is to be dropped."""
        with self._lock:
            if now >= self.over:
                # An interval without requests between this and the last: then nothing stood in the queue.
                self.overloaded = self.shortest > self._target and now < self.over + self._interval
                self.over, self.shortest = now + self._interval, waited
            elif waited < self.shortest:
                self.shortest = waited
            return self.overloaded and waited > self._most
