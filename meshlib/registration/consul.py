"""ConsulRegistration: a service instance in a Consul agent, from the moment it can serve to the moment it leaves.

* It is registered when its port accepts connections, not before: a server announced early refuses its first callers.
* It does not flap. It begins as passing, is registered again under the same ID and in the health it had, and beats
  three times in a time to live; a beat that fails is tried again at once, with a back-off.
* An agent that has forgotten it (restarted, its state lost) is told again, within a third of the time to live.
* It is deregistered first of all when the process drains, by the process that registered it: a forked child has no say.

    registration = ConsulRegistration("payments", port=8080, tags=["v1"], meta={"version": "v1"})
    drain.on_drain(registration.leave)     # SIGTERM: no new callers, while the server goes on serving
    with registration: ...                 # or start() and close()
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from meshlib.registration.definition import HttpCheck, ServiceDefinition, Status, TtlCheck, check_payload
from meshlib.sources.consul.settings import ConsulSettings, load_settings

if TYPE_CHECKING:
    from meshlib.sources.consul.agent_api import ConsulApi

log = logging.getLogger("meshlib.registration")
_LEAVE_SECONDS = 5.0
_PROBE_SECONDS = 0.05
_FIRST_RETRY = 0.1
_TTL_CHECK = TtlCheck()


class ConsulRegistration:
    """The registration of one instance; see `ServiceDefinition` for what is said of it.

    `check`: `TtlCheck` (this process says that it is well, in `is_healthy`'s words if that is given; it is called in a
    thread and must be quick) or `HttpCheck` (Consul's agent looks for itself). `settings`: None reads `CONSUL_*`.
    `wait_for_port`: register only when the port accepts connections (of `address`, or this host).
    """

    def __init__(
        self,
        service: str,
        *,
        port: int,
        address: str = "",
        service_id: str = "",
        tags: Iterable[str] = (),
        meta: Mapping[str, str] | None = None,
        weights: tuple[int, int] = (1, 1),
        locality: tuple[str, str] | None = None,
        check: TtlCheck | HttpCheck = _TTL_CHECK,
        is_healthy: Callable[[], bool] | None = None,
        settings: ConsulSettings | None = None,
        wait_for_port: bool = True,
    ) -> None:
        self.definition = ServiceDefinition(service, port, address, service_id, tuple(tags), meta, weights, locality)
        self._check = check
        self._is_healthy = is_healthy
        self._settings = settings
        self._waits_for_port = wait_for_port
        self._rng = random.Random()  # noqa: S311  it spreads load
        self._owner: int | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._leaving = False
        self._was_told = False  # the agent may know the instance, whether or not it said so
        self.registered = False

    def start(self) -> Self:
        """Begin, in a daemon thread; returns at once. Idempotent per process; a child that starts is an owner anew."""
        if self._owner == os.getpid() and self._thread is not None and self._thread.is_alive():
            return self
        from meshlib.sources.consul.agent_api import ConsulApi

        self._owner, self._wake = os.getpid(), threading.Event()
        self._leaving = self._was_told = self.registered = False
        api = ConsulApi(self._settings or load_settings())
        self._thread = threading.Thread(target=self._run, args=(api,), name="meshlib-registration", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        return self

    def wait_registered(self, timeout: float = 15.0) -> bool:
        """Block until the agent knows the instance; False when the time is over."""
        deadline = time.monotonic() + timeout
        while not self.registered and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.registered

    def leave(self) -> None:
        """Deregister, from the thread, and return at once: what a drain hook must do. Idempotent."""
        self._leaving = True
        self._wake.set()

    def close(self) -> None:
        """Deregister and wait until it is done, five seconds at most. Idempotent; in a forked child it does nothing."""
        if self._owner != os.getpid():
            return
        self.leave()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LEAVE_SECONDS + 1)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The thread ------------------------------------------------------------------------------------------------------

    def _run(self, api: ConsulApi) -> None:
        failures = 0
        while not self._leaving and self._waits_for_port and not self._accepts():
            self._wake.wait(_PROBE_SECONDS)
        while not self._leaving:
            try:
                self._beat(api)
                if failures:
                    log.info("%s: the Consul agent does as it is asked again", self.definition.id)
                failures, pause = 0, self._interval
            except Exception as error:  # noqa: BLE001  py-consul's, the network's: whatever it is, the next beat is due
                failures += 1
                if failures == 1:
                    log.warning("%s: %s", self.definition.id, _said(error))
                pause = min(self._interval, _FIRST_RETRY * 2 ** min(failures, 16)) * (0.5 + self._rng.random() / 2)
            self._wake.wait(pause)
        if self._was_told:
            self._deregister(api)

    @property
    def _interval(self) -> float:
        return self._check.interval if isinstance(self._check, TtlCheck) else self._check.verify

    def _beat(self, api: ConsulApi) -> None:
        """Tell the agent that the instance is there, and how it is."""
        status = self._status()
        if self.registered and self._is_known(api, status):
            return
        again, self._was_told = self._was_told, True
        self.registered = False
        if not again and isinstance(self._check, HttpCheck):
            status = "critical"  # until the agent has looked for itself
        self._register(api, status)
        self.registered = True
        log.info("%s is registered%s", self.definition.id, " again" if again else "")

    def _is_known(self, api: ConsulApi, status: Status) -> bool:
        definition = self.definition
        if isinstance(self._check, HttpCheck):
            return api.agent.service_definition(definition.id) is not None
        mark = api.agent.check.ttl_pass if status == "passing" else api.agent.check.ttl_fail
        return bool(mark(definition.check_id))

    def _register(self, api: ConsulApi, status: Status) -> None:
        definition = self.definition
        api.agent.service.register(
            definition.service,
            service_id=definition.id,
            address=definition.address or None,
            port=definition.port,
            tags=list(definition.tags),
            meta=dict(definition.meta or {}),
            weights={"Passing": definition.weights[0], "Warning": definition.weights[1]},
            check=check_payload(definition, self._check, status),
            locality=dict(zip(("Region", "Zone"), definition.locality, strict=True)) if definition.locality else None,
            replace_existing_checks=True,
        )

    def _status(self) -> Status:
        if self._is_healthy is None:
            return "passing"
        try:
            return "passing" if self._is_healthy() else "critical"
        except Exception:
            log.exception("%s: the health function failed: the instance counts as critical", self.definition.id)
            return "critical"

    def _accepts(self) -> bool:
        """Whether the port takes connections."""
        with contextlib.suppress(OSError):
            socket.create_connection((self.definition.address or "127.0.0.1", self.definition.port), 1.0).close()
            return True
        return False

    def _deregister(self, api: ConsulApi) -> None:
        """Also when the answer to a registration never came: the agent may know the instance all the same."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        while True:
            try:
                api.agent.service.deregister(self.definition.id)
            except Exception as error:  # noqa: BLE001  as in a beat
                if _is_refusal(error) or time.monotonic() > deadline:
                    log.warning("%s could not be deregistered: %s", self.definition.id, _said(error))
                    return
                time.sleep(_FIRST_RETRY)
            else:
                self.registered = False
                log.info("%s is deregistered", self.definition.id)
                return


def _said(error: Exception) -> str:
    how = "refuses" if _is_refusal(error) else "does not answer"
    return f"the Consul agent {how}: {type(error).__name__}: {error}"


def _is_refusal(error: Exception) -> bool:
    from meshlib.sources.consul.agent_api import is_refusal

    return is_refusal(error)
