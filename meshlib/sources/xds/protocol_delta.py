"""Delta ADS: requests and responses hold only what changed, versions are kept a resource."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshlib.sources.xds.protocol import AdsProtocol
from meshlib.sources.xds.reception import Reception
from meshlib.sources.xds.types import WILDCARD, DeltaRequest, DeltaResponse


@dataclass(slots=True)
class _TypeOnStream:
    """What was said of one type on the current stream."""

    subscribed: frozenset[str] = frozenset()
    has_asked: bool = False
    answers: list[tuple[str, str | None]] = field(default_factory=list)  # (nonce, error) not sent yet


class DeltaProtocol(AdsProtocol[DeltaRequest, DeltaResponse]):
    """The state machine of DeltaDiscoveryRequest and DeltaDiscoveryResponse."""

    _on_stream: dict[str, _TypeOnStream]

    def _forget_stream(self) -> None:
        self._on_stream = {}

    def forget_versions(self) -> None:
        """Nothing to do: cached versions carry the server they came from."""

    def _requests_of(self, type_url: str) -> list[DeltaRequest]:
        state = self._on_stream.setdefault(type_url, _TypeOnStream())
        wanted = self._subscriptions.names(type_url)
        subscribe, unsubscribe = wanted - state.subscribed, state.subscribed - wanted
        answers = list(state.answers)
        state.answers.clear()
        requests: list[DeltaRequest] = []
        if subscribe or unsubscribe:
            nonce, error = answers.pop(0) if answers else ("", None)
            requests.append(self._change(type_url, state, subscribe, unsubscribe, nonce, error))
        requests += [
            DeltaRequest(type_url, response_nonce=nonce, error_detail=error, first=self._take_first())
            for nonce, error in answers
        ]
        return requests

    def _change(
        self,
        type_url: str,
        state: _TypeOnStream,
        subscribe: frozenset[str],
        unsubscribe: frozenset[str],
        nonce: str,
        error: str | None,
    ) -> DeltaRequest:
        versions = () if state.has_asked else self._held_versions(type_url)
        # As in state of the world: a wildcard alone opens a type by naming nothing, which every server understands.
        legacy_wildcard = not state.has_asked and subscribe == {WILDCARD}
        state.subscribed, state.has_asked = state.subscribed - unsubscribe | subscribe, True
        return DeltaRequest(
            type_url,
            () if legacy_wildcard else tuple(sorted(subscribe)),
            tuple(sorted(unsubscribe)),
            versions,
            nonce,
            error,
            self._take_first(),
        )

    def _held_versions(self, type_url: str) -> tuple[tuple[str, str], ...]:
        return tuple(
            (name, entry.version)
            for name, entry in sorted(self._cache.entries(type_url).items())
            if entry.body is not None and entry.version and entry.origin == self._origin
        )

    def _asked_by(self, request: DeltaRequest) -> frozenset[str]:
        is_legacy_wildcard = not (request.subscribe or request.unsubscribe or request.response_nonce)
        return frozenset((WILDCARD,) if is_legacy_wildcard else request.subscribe)

    def _has_asked(self, type_url: str) -> bool:
        state = self._on_stream.get(type_url)
        return state is not None and state.has_asked

    def _apply(self, response: DeltaResponse) -> Reception:
        reception = self._receiver.take(
            response.type_url, response.resources, response.system_version_info, self._origin
        )
        for name in response.removed:
            if name not in reception.present:
                reception.events += self._receiver.remove(response.type_url, name)
        self._control_plane_errors(response.type_url, response.errors, reception)
        return reception

    def _answer(self, response: DeltaResponse, error: str | None) -> None:
        self._on_stream[response.type_url].answers.append((response.nonce, error))

    def _version_of(self, response: DeltaResponse) -> str:
        return response.system_version_info
