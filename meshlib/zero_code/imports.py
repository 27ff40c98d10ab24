"""Do something when a module has been imported, and not before: what a program does not use is not imported for it."""

from __future__ import annotations

import importlib.util
import logging
import sys
from _thread import get_ident
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]
log = logging.getLogger("meshlib")


def when_imported(name: str, action: Action) -> None:
    """Run `action(module)` once, right after the module's own code: now, if it is imported already.

    An action that fails is logged: the program goes on, its library unmeshed and the reason told.
    """
    module = sys.modules.get(name)
    if module is not None:
        _run(action, module)
        return
    if not any(finder is _watcher for finder in sys.meta_path):
        sys.meta_path.insert(0, _watcher)
    _watcher.waiting[name] = action


class _Watcher(MetaPathFinder):
    """Finds nothing itself: it asks the other finders, and hands on what they found with our action behind it."""

    def __init__(self) -> None:
        self.waiting: dict[str, Action] = {}
        self._asking: set[tuple[int, str]] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The others' answer, for a module that is waited for. Who only asks where it is does not end the wait."""
        asked = (get_ident(), fullname)
        if fullname not in self.waiting or asked in self._asking:
            return None
        self._asking.add(asked)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking.discard(asked)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, self.waiting)
        return spec


class _Then(Loader):
    """A loader, and what is waiting for its module."""

    def __init__(self, loader: Loader, waiting: dict[str, Action]) -> None:
        self._loader = loader
        self._waiting = waiting

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then the action; a module that fails is waited for again."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader  # nobody needs to know
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        action = self._waiting.pop(module.__name__, None)
        if action is not None:
            _run(action, module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _run(action: Action, module: ModuleType) -> None:
    try:
        action(module)
    except Exception:
        log.exception("meshlib run: %s could not be meshed and is used as it is", module.__name__)


_watcher = _Watcher()
