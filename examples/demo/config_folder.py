"""The configuration on disk, and the only way the demo changes it: edit a line, replace the file atomically."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

TEMPLATE = Path(__file__).with_name("conf")
TRAFFIC = "traffic.yaml"


class ConfigFolder:
    """A copy of `conf/` that a control plane serves. `revision` counts the edits; responses carry it as a header."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.revision = 0
        shutil.copytree(TEMPLATE, folder)

    @property
    def traffic(self) -> Path:
        """The file that is edited."""
        return self.folder / TRAFFIC

    def edit(self, **values: object) -> int:
        """Give each marker (`stable_weight` is the line with `# stable weight`) its value; the new revision."""
        self.revision += 1
        self._write({**values, "revision": f'"{self.revision}"'})
        return self.revision

    def spoil(self, **values: object) -> None:
        """An edit that is not meant to be served, and so has no revision."""
        self._write(values)

    def _write(self, values: dict[str, object]) -> None:
        text = self.traffic.read_text(encoding="utf-8")
        for name, value in values.items():
            text = _set(text, name.replace("_", " "), str(value))
        draft = self.traffic.with_suffix(".draft")
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.traffic)


def _set(text: str, marker: str, value: str) -> str:
    line = re.compile(rf"^( *(?:- )?\w+: ).*(  # {re.escape(marker)})$", re.MULTILINE)
    text, count = line.subn(lambda found: found[1] + value + found[2], text)
    if count != 1:
        raise ValueError(f"{count} lines are marked '# {marker}'; one must be")
    return text


def endpoints(ports: Iterable[int]) -> str:
    """`lb_endpoints` of these local ports, on one line."""
    entries = (
        f"{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}" for port in ports
    )
    return f"[{', '.join(entries)}]"
