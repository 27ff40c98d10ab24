"""ControlPlane: a directory of YAML served over ADS, validated before it is served, live on change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from meshlib.control.ads_server import AdsServer, Resource, ResourceStore, SubscriberInfo
from meshlib.model.report import Issue
from meshlib.model.snapshot import Snapshot
from meshlib.sources.files.resources import Loaded
from meshlib.sources.files.source import FileWatch

__all__ = ["Changed", "ControlPlane"]

Changed = Callable[["ControlPlane"], None]
"""Called on the watching thread after every edit, served or refused; `version` and `issues` say which."""


class ControlPlane:
    """Serves the files of `paths` (files and directories, as for `FileSource`) over ADS, state of the world and delta.

    A version with an error is not served: `issues` holds what and where, and subscribers keep the version before it.
    `port` 0 picks a free one, see `address`. `credentials` are grpcio server credentials (plaintext without).
    `start` returns when the first version is served or refused; usable as a context manager.
    """

    def __init__(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        on_change: Changed | None = None,
    ) -> None:
        self._host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        self._port = port
        self._credentials = credentials
        self._on_change = on_change
        self._store = ResourceStore()
        self._watch = FileWatch((paths,) if isinstance(paths, str | Path) else paths, self._deliver)
        self._server: AdsServer | None = None
        self._changed = threading.Condition()
        self._edits = 0
        self._issues: tuple[Issue, ...] = ()

    def start(self, timeout: float = 30.0) -> Self:
        """Bind, load, serve. Raises OSError when the address cannot be had, TimeoutError when loading takes longer
        than `timeout` seconds.
        """
        server = AdsServer(self._store, f"{self._host}:{self._port}", credentials=self._credentials)
        try:
            self._load(timeout)
            self._server = server.start()
        except BaseException:
            self._watch.close()
            server.stop()
            raise
        return self

    def _load(self, timeout: float) -> None:
        self._watch.start()
        with self._changed:
            if not self._changed.wait_for(lambda: self._edits > 0, timeout):
                raise TimeoutError(f"the configuration was not loaded within {timeout} seconds")

    def stop(self) -> None:
        """Stop watching and serving; idempotent."""
        self._watch.close()
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    @property
    def address(self) -> str:
        """`host:port`, for `server_uri`."""
        return f"{self._host}:{self._server.port}" if self._server else f"{self._host}:{self._port}"

    @property
    def version(self) -> int:
        """The number of the version that is served; 0 while there is none."""
        return self._store.current.number

    @property
    def issues(self) -> tuple[Issue, ...]:
        """What the last edit brought: with an error among them it was refused."""
        return self._issues

    @property
    def refused(self) -> bool:
        """Whether the files as they are now are not what is served."""
        return any(issue.severity == "error" for issue in self._issues)

    @property
    def resources(self) -> dict[str, int]:
        """How many resources of each type URL are served."""
        return {type_url: len(view) for type_url, view in self._store.current.types.items()}

    def subscribers(self) -> tuple[SubscriberInfo, ...]:
        """Who is connected and what they took or refused."""
        return self._server.subscribers() if self._server else ()

    def wait_for_version(self, number: int, timeout: float = 5.0) -> bool:
        """Wait until at least that version is served; False when it did not come in `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.version >= number, timeout)

    def wait_for_edit(self, edits: int, timeout: float = 5.0) -> bool:
        """Wait until that many states of the files were looked at, refused ones included (see `edits`)."""
        with self._changed:
            return self._changed.wait_for(lambda: self._edits >= edits, timeout)

    @property
    def edits(self) -> int:
        """How many states of the files were looked at, the first included."""
        return self._edits

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _deliver(self, loaded: Loaded, snapshot: Snapshot, issues: tuple[Issue, ...]) -> None:
        """Serve what decodes into a snapshot without an error; the snapshot itself is the proof, not the product."""
        self._issues = issues
        if not self.refused:
            self._store.replace(Resource.of_message(resource.message) for resource in loaded.resources)
        with self._changed:
            self._edits += 1
            self._changed.notify_all()
        if self._on_change is not None:
            self._on_change(self)
