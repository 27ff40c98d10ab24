"""MeshlibInstrumentor: every mesh of the process, by OpenTelemetry's own means.

`opentelemetry-instrument python app.py` finds it by its entry point; `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=meshlib`
keeps it out. In code: `MeshlibInstrumentor().instrument()`, once the providers are set.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from meshlib.telemetry import everywhere

__all__ = ["MeshlibInstrumentor"]

OPTIONS = frozenset(("tracer_provider", "meter_provider", "spans", "metrics", "query"))


class MeshlibInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Meshes that there are, and those that are made later. The arguments of `instrument` are `Mesh.instrument`'s."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Nothing but meshlib itself, which is there."""
        return ()

    def _instrument(self, **options: Any) -> None:
        everywhere.instrument_all({name: value for name, value in options.items() if name in OPTIONS})

    def _uninstrument(self, **options: Any) -> None:
        everywhere.uninstrument_all()
