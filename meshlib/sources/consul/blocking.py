"""The rules of Consul's blocking queries, for one query (developer.hashicorp.com/consul/api-docs/features/blocking).

The index of an answer is sent with the next question, which then waits for something newer. But:

* an index that went backwards means that the servers' state is another one: the next question is asked without;
* an index below 1 is taken as 1: a question with 0 does not wait, and asked again and again would be a busy loop;
* after a failure nobody knows what was missed: the next question is asked without an index, and answered at once (a
  server that lost its state would let a question with the old, higher index wait to its end);
* a new index is not a change, and neither is an answer: what is told must be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

_JITTER = 16  # Consul adds up to wait / 16, so that clients do not come back together


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer's index says. `went_back`: the state is not the one known so far."""

    went_back: bool
    after_failure: bool


class BlockingIndex:
    """`ask` is what to send: 0 is "do not send one, and do not wait"."""

    __slots__ = ("_failed", "_seen", "ask")

    def __init__(self) -> None:
        self.ask = 0
        self._seen = 0
        self._failed = False

    def answered(self, index: int | None) -> Answered:
        """An answer with this `X-Consul-Index`; None when it had none, which cannot be waited for."""
        if index is None:
            verdict = Answered(False, self._failed)
            self.ask = 0
        else:
            index = max(1, index)
            verdict = Answered(index < self._seen, self._failed)
            self.ask = 0 if verdict.went_back else index
            self._seen = index
        self._failed = False
        return verdict

    def failed(self) -> None:
        """There was no answer, or none that counts."""
        self.ask = 0
        self._failed = True


def longest_answer(wait: float, slack: float) -> float:
    """Seconds after which a question that may wait for `wait` counts as unanswered."""
    return wait + wait / _JITTER + slack
