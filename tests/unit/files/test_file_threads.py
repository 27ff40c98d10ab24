"""Several meshes of one process read their files at the same time."""

import sys
import threading
from pathlib import Path

import pytest

from meshlib.sources.files.loader import load

SERVICES = "---\n".join(
    f"""\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: s{number}}}
spec:
  hosts: [s{number}]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 10.0.0.1}}]
"""
    for number in range(20)
)


@pytest.fixture
def hectic():
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_threads_that_read_at_the_same_time_do_not_disturb_each_other(tmp_path: Path, hectic: None) -> None:
    (tmp_path / "mesh.yaml").write_text(SERVICES)
    found: list[str] = []

    def read() -> None:
        for _ in range(4):
            found.extend(str(issue) for issue in load([tmp_path]).issues)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == []
