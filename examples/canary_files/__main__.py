"""A canary by files: `python -m examples.canary_files`.

`conf/` holds Istio's resources; the mesh watches the folder it is given. The script works on a copy, in which the
ports are those of two servers it starts, and shifts the weights by editing the file.
"""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from pathlib import Path

from examples.tiny_server import TinyServer
from meshlib import Mesh
from meshlib.engine.events import PlanChanged

CALLS = 500


def main(folder: Path) -> None:
    stable, canary = TinyServer("stable"), TinyServer("canary")
    file = folder / "payments.yaml"
    text = Path(__file__).with_name("conf").joinpath("payments.yaml").read_text(encoding="utf-8")
    text = text.replace("9001", str(stable.port)).replace("9002", str(canary.port))
    file.write_text(text, encoding="utf-8")

    with Mesh.from_file(folder).wait_ready() as mesh, mesh.http.client("payments") as client:
        changed = threading.Event()
        mesh.on_event(lambda event: changed.set() if isinstance(event, PlanChanged) else None)
        print(f"by header: {client.get('/', headers={'x-canary': 'always'}).text}")
        for percent in (10, 50, 100):
            edited = text.replace("weight: 10}", f"weight: {percent}}}").replace("90}", f"{100 - percent}}}")
            if edited != text:
                changed.clear()
                file.write_text(edited, encoding="utf-8")
                if not changed.wait(10):
                    raise SystemExit(f"the edit was refused: {mesh.issues}")
            answers = Counter(client.get("/").text for _ in range(CALLS))
            print(f"{percent} % wanted: {100 * answers['canary'] / CALLS:.1f} % of {CALLS} calls reach the canary")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
