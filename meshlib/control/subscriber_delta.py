"""The server's side of a delta stream."""

from __future__ import annotations

from meshlib.control.resource_store import View
from meshlib.control.subscriber import Subscriber, TypeSubscription, set_names, versions
from meshlib.sources.xds.types import WILDCARD, DeltaRequest, DeltaResponse, WireResource


class DeltaSubscriber(Subscriber[DeltaRequest, DeltaResponse]):
    """Only what changed is sent, what is gone is named, and so is what was asked for and never existed."""

    def request(self, request: DeltaRequest) -> str | None:
        """Take a DeltaDiscoveryRequest."""
        is_first = request.type_url not in self.types
        state = self._subscription(request.type_url)
        news = state.answered(request.response_nonce, request.error_detail) if request.response_nonce else None
        subscribe = set(request.subscribe)
        if is_first:
            state.told = dict(request.initial_resource_versions)
            if not subscribe and not request.unsubscribe:
                subscribe = {WILDCARD}  # naming nothing at first asks for all
        else:
            for name in subscribe:  # asking again for what one has means it was lost
                state.told.pop(name, None)
        state.told_missing -= subscribe
        before = state.names | ({WILDCARD} if state.is_wildcard else set())
        set_names(state, (before | subscribe) - set(request.unsubscribe))
        return news

    def _response(self, type_url: str, subscription: TypeSubscription, view: View) -> DeltaResponse | None:
        wanted = subscription.wanted(view)
        changed = [r for name, r in wanted.items() if subscription.told.get(name) != r.version]
        missing = subscription.names.difference(wanted) - subscription.told_missing
        removed = (set(subscription.told) - set(wanted)) | missing
        subscription.told = versions(wanted)
        subscription.told_missing |= removed & subscription.names
        subscription.told_missing -= set(wanted)
        is_owed = subscription.must_respond and subscription.is_wildcard
        if not (changed or removed or is_owed):
            return None
        version = str(self._version.number)
        return DeltaResponse(
            type_url,
            self._next_nonce(subscription, version),
            tuple(WireResource(type_url, r.body, r.name, r.version) for r in changed),
            tuple(sorted(removed)),
            version,
        )
