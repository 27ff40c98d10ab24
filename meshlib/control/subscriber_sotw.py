"""The server's side of a state-of-the-world stream."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from meshlib.control.resource_store import Resource, View
from meshlib.control.subscriber import Subscriber, TypeSubscription, set_names, versions
from meshlib.sources.xds.types import FULL_STATE_TYPES, WILDCARD, SotwRequest, SotwResponse, WireResource


class SotwSubscriber(Subscriber[SotwRequest, SotwResponse]):
    """Listeners and clusters are sent whole; of other types what is new to the subscriber."""

    def request(self, request: SotwRequest) -> str | None:
        """Take a DiscoveryRequest."""
        is_first = request.type_url not in self.types
        state = self._subscription(request.type_url)
        if not is_first and request.response_nonce != state.nonce:
            return None  # stale: crossed a newer response, whose answer will say all of it again
        news = state.answered(request.response_nonce, request.error_detail)
        names = set(request.resource_names)
        # Nothing named: all, for one that never named anything; otherwise nothing.
        if not names and not state.has_named:
            names = {WILDCARD}
        else:
            state.has_named = True
        if names - state.names - {WILDCARD} and request.type_url in FULL_STATE_TYPES:
            state.must_respond = True  # a name that does not exist is answered too, by its absence
        set_names(state, names)
        return news

    def _response(self, type_url: str, subscription: TypeSubscription, view: View) -> SotwResponse | None:
        wanted = subscription.wanted(view)
        known = versions(wanted)
        if type_url in FULL_STATE_TYPES:
            content: Mapping[str, Resource] = wanted
            has_news = known != subscription.told or subscription.must_respond
        else:
            content = {n: r for n, r in wanted.items() if subscription.told.get(n) != r.version}
            has_news = bool(content)
        subscription.told = known
        if not has_news:
            return None
        version = _version(known)
        return SotwResponse(
            type_url,
            version,
            self._next_nonce(subscription, version),
            tuple(WireResource(type_url, r.body, r.name, r.version) for r in content.values()),
        )


def _version(known: Mapping[str, str]) -> str:
    """The version of a set of resources: the same content has the same version, also after a restart."""
    digest = hashlib.sha256()
    for name, version in sorted(known.items()):
        digest.update(f"{len(name)}:{name}{version}".encode())
    return digest.hexdigest()[:16]
