"""The shop application under a real server in a process of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from parts.process import Process

ROOT = Path(__file__).parents[3]
APP = "e2e.asgi.shop_app:app"


class Shop:
    """`server` is uvicorn, uvicorn without lifespan, or gunicorn with a uvicorn worker; settings are the app's."""

    def __init__(self, folder: Path, target: str, server: str = "uvicorn", **settings: Any) -> None:
        settings = {"framework": "starlette", "target": target, **settings}
        environment = {
            "SHOP": json.dumps(settings),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "GRPC_XDS_BOOTSTRAP": "",
            "GRPC_XDS_BOOTSTRAP_CONFIG": "",
        }
        self._has_lifespan = server != "uvicorn without lifespan"
        quiet = [sys.executable, "-W", "ignore::DeprecationWarning", "-m"]
        self.process = Process([*quiet, *COMMANDS[server], APP], folder / "shop.log", env=environment)

    def wait(self) -> Shop:
        """Until it serves."""
        self.port = int(self.process.wait_line(r"(?:running on|Listening at:) http://127.0.0.1:(\d+)")[1])
        if self._has_lifespan:
            self.process.wait_line("application started")
        return self

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def exit_code(self, timeout: float = 20.0) -> int:
        """Wait for its end."""
        return self.process._child.wait(timeout)

    def stop(self) -> None:
        self.process.stop()


COMMANDS = {
    "uvicorn": ["uvicorn", "--port", "0", "--no-access-log"],
    "uvicorn without lifespan": ["uvicorn", "--port", "0", "--no-access-log", "--lifespan", "off"],
    "gunicorn": ["gunicorn", "--bind", "127.0.0.1:0", "--worker-class", "uvicorn_worker.UvicornWorker"],
}
