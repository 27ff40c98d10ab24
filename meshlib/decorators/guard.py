"""`mesh.guard("payments")`: a function under the route of a service."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from meshlib.context import current
from meshlib.decorators.call import AsyncCall, SyncCall
from meshlib.decorators.functions import is_async, refuse_generators
from meshlib.decorators.policy import GuardPolicy

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

P = ParamSpec("P")
R = TypeVar("R")


class Guard:
    """A decorator that keeps the function's type. One guard may decorate many functions; it holds no state: limits,
    breaker and budget are the cluster's, shared with its clients and in force as the control plane last said.
    """

    def __init__(self, mesh: Mesh, policy: GuardPolicy) -> None:
        self._mesh = mesh
        self._policy = policy

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The guarded function. Raises TypeError for what cannot be called twice as a whole, such as a generator."""
        refuse_generators(function, "guard")
        guarded: Callable[P, R] = self._asynchronous(function) if is_async(function) else self._blocking(function)
        return guarded

    def _blocking(self, function: Callable[..., Any]) -> Any:
        mesh, policy = self._mesh, self._policy

        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            mesh.ensure_started()
            context = current.get()
            call = partial(function, *args, **kwargs)
            return SyncCall(mesh, policy, call, policy.head(context, args, kwargs), context).run()

        return guarded

    def _asynchronous(self, function: Callable[..., Any]) -> Any:
        mesh, policy = self._mesh, self._policy

        @wraps(function)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            mesh.ensure_started()
            context = current.get()
            call = partial(function, *args, **kwargs)
            return await AsyncCall(mesh, policy, call, policy.head(context, args, kwargs), context).run()

        return guarded
