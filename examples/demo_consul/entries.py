"""What the story writes: Consul's config entries. Two weights are a service-splitter."""

from __future__ import annotations

from pathlib import Path

from meshlib.sources.consul import load_settings
from meshlib.sources.consul.agent_api import ConsulApi

REVISION = "x-config-revision"


class ConsulEntries:
    """`edit(stable_weight=90, canary_weight=10)` writes the splitter of payments; `revision` counts, and answers carry
    it in a header that the splitter adds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.revision = 0
        self.api: ConsulApi
        self._weights: dict[str, object] = {"stable_weight": 100, "canary_weight": 0}

    def open(self, address: str) -> None:
        """Everything is HTTP, so that it can be routed and split."""
        self.api = ConsulApi(load_settings(address))
        self.api.config.set("proxy-defaults", "global", {"Config": {"protocol": "http"}})

    def edit(self, **values: object) -> int:
        """Shift the weights; the new revision."""
        self._weights |= values
        self.revision += 1
        self._write(self.revision)
        return self.revision

    def spoil(self, **values: object) -> None:
        """An entry that Consul itself refuses; raises py-consul's ConsulException."""
        before = dict(self._weights)
        self._weights |= values
        try:
            self._write(self.revision)
        finally:
            self._weights = before

    def _write(self, revision: int) -> None:
        mark = {"Set": {REVISION: str(revision)}}
        splits = [
            {"Weight": self._weights[f"{service}_weight"], "Service": service, "ResponseHeaders": mark}
            for service in ("stable", "canary")
        ]
        self.api.config.set("service-splitter", "payments", {"Splits": splits})
