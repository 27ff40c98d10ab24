"""What changed between two looks at a control plane's subscribers, as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshlib.control.ads_server import SubscribedType, SubscriberInfo


class SubscriberLog:
    """Remembers the last look. Not thread-safe."""

    def __init__(self) -> None:
        self._seen: dict[int, SubscriberInfo] = {}

    def lines(self, subscribers: Iterable[SubscriberInfo]) -> Iterator[str]:
        """One line for each that came, went, took a version or refused one."""
        now = {subscriber.id: subscriber for subscriber in subscribers}
        before, self._seen = self._seen, now
        for number, subscriber in now.items():
            if number not in before:
                kind = "delta" if subscriber.delta else "state of the world"
                yield f"{_name(subscriber)} connected from {subscriber.peer} ({kind})"
            yield from _news(before.get(number), subscriber)
        for number, subscriber in before.items():
            if number not in now:
                yield f"{_name(subscriber)} disconnected"


def _news(before: SubscriberInfo | None, now: SubscriberInfo) -> Iterator[str]:
    known = {kind.type_url: kind for kind in before.types} if before else {}
    for kind in now.types:
        if (line := _change(known.get(kind.type_url), kind)) is not None:
            yield f"{_name(now)} {line}"


def _change(before: SubscribedType | None, now: SubscribedType) -> str | None:
    short = now.type_url.rpartition(".")[2]
    if now.last_nack and (before is None or before.last_nack != now.last_nack):
        return f"REFUSED {short}: {now.last_nack}"
    if now.acked_version and (before is None or before.acked_version != now.acked_version):
        return f"took {short} version {now.acked_version}"
    return None


def _name(subscriber: SubscriberInfo) -> str:
    return subscriber.node_id or f"subscriber {subscriber.id}"
