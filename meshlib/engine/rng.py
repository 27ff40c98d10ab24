"""Randomness: what a mesh draws from: uniform numbers for choices, bits for identifiers. `random.Random` is both."""

from __future__ import annotations

from typing import Protocol

from meshlib.policy.rng import Rng
from meshlib.telemetry.propagation import Bits


class Randomness(Rng, Bits, Protocol):
    """Uniform numbers and bits from one source, so that one seed repeats everything."""
