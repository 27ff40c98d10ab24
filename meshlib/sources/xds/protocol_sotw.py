"""State-of-the-world ADS: each request names the whole subscription of a type, each response is ACKed as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.sources.xds.events import Event, ResourceDoesNotExist, ResourceFailed
from meshlib.sources.xds.protocol import AdsProtocol
from meshlib.sources.xds.reception import Reception
from meshlib.sources.xds.types import FULL_STATE_TYPES, VIRTUAL_HOST, WILDCARD, SotwRequest, SotwResponse

_NEEDS_DELTA = "virtual hosts on demand need delta xDS, and this server is asked for state of the world"


@dataclass(slots=True)
class _TypeOnStream:
    """What was said of one type on the current stream."""

    requested: tuple[str, ...] | None = None  # None: not asked for yet
    has_named: bool = False  # some request named something: an empty list no longer means "all"
    nonce: str = ""
    must_answer: bool = False
    error: str | None = None


class SotwProtocol(AdsProtocol[SotwRequest, SotwResponse]):
    """The state machine of DiscoveryRequest and DiscoveryResponse (Envoy: xDS REST and gRPC protocol)."""

    _on_stream: dict[str, _TypeOnStream]
    _versions: dict[str, str]

    def _forget_stream(self) -> None:
        self._on_stream = {}
        # Versions outlive streams: they tell the server what we still hold.
        self._versions = getattr(self, "_versions", {})

    def forget_versions(self) -> None:
        """Ask for everything anew on the next stream."""
        self._versions = {}

    def _requests_of(self, type_url: str) -> list[SotwRequest]:
        if type_url == VIRTUAL_HOST:
            return []
        state = self._on_stream.setdefault(type_url, _TypeOnStream())
        names = self._names_to_send(type_url, state)
        if state.requested is None and not self._subscriptions.names(type_url):
            return []
        if names == state.requested and not state.must_answer:
            return []
        request = SotwRequest(
            type_url,
            names,
            self._versions.get(type_url, ""),
            state.nonce,
            state.error if state.must_answer else None,
            self._take_first(),
        )
        state.requested, state.must_answer, state.error = names, False, None
        state.has_named = state.has_named or bool(names)
        return [request]

    def tick(self, now: float) -> list[Event]:
        """As ever; and of virtual hosts, which only delta can ask for one by one, that there are none (VHDS)."""
        failed: list[Event] = []
        for name in self._unaskable():
            self._cache.mark_missing(VIRTUAL_HOST, name)
            failed += [ResourceFailed(VIRTUAL_HOST, name, _NEEDS_DELTA), ResourceDoesNotExist(VIRTUAL_HOST, name)]
        return [*failed, *super().tick(now)]

    def deadline(self) -> float | None:
        """As ever; at once, where there is something to ask for that cannot be."""
        return float("-inf") if self._unaskable() else super().deadline()

    def _unaskable(self) -> list[str]:
        names = self._subscriptions.names(VIRTUAL_HOST)
        return sorted(name for name in names if not self._cache.is_known(VIRTUAL_HOST, name))

    def _names_to_send(self, type_url: str, state: _TypeOnStream) -> tuple[str, ...]:
        names = self._subscriptions.names(type_url)
        # A wildcard alone is said in the old way, by naming nothing, which every server understands. Once something
        # was named on this stream, nothing would mean "unsubscribe from all".
        if names == {WILDCARD} and not state.has_named:
            return ()
        return tuple(sorted(names))

    def _asked_by(self, request: SotwRequest) -> frozenset[str]:
        return frozenset(request.resource_names or (WILDCARD,))

    def _has_asked(self, type_url: str) -> bool:
        state = self._on_stream.get(type_url)
        return state is not None and state.requested is not None

    def _apply(self, response: SotwResponse) -> Reception:
        type_url = response.type_url
        reception = self._receiver.take(type_url, response.resources, response.version_info, self._origin)
        if type_url in FULL_STATE_TYPES and not reception.is_malformed:
            self._remove_absent(type_url, reception)
        self._control_plane_errors(type_url, response.errors, reception)
        return reception

    def _remove_absent(self, type_url: str, reception: Reception) -> None:
        # Only what was there can be taken away: a name asked for a moment ago may be missing because this response
        # answers an older request. Its timer decides.
        for name, entry in self._cache.entries(type_url).items():
            if name in reception.present:
                continue
            if entry.body is not None:
                reception.events += self._receiver.remove(type_url, name)
            entry.rejection = None

    def _answer(self, response: SotwResponse, error: str | None) -> None:
        state = self._on_stream[response.type_url]
        state.nonce, state.must_answer, state.error = response.nonce, True, error
        if error is None:
            self._versions[response.type_url] = response.version_info

    def _version_of(self, response: SotwResponse) -> str:
        return response.version_info
