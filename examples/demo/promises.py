"""What the demo holds the mesh to: each promise kept or broken, with the measurement that says so."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Promise:
    """`measured` is the evidence, for people."""

    text: str
    kept: bool
    measured: str


@dataclass(slots=True)
class Results:
    """Promises, and figures worth telling, in the order they came up."""

    promises: list[Promise] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    effects: list[float] = field(default_factory=list)

    def promise(self, text: str, kept: bool, measured: str) -> Promise:
        """Note a promise."""
        found = Promise(text, bool(kept), measured)
        self.promises.append(found)
        return found

    def figure(self, name: str, value: str) -> None:
        """Note a figure."""
        self.figures.append((name, value))

    @property
    def broken(self) -> list[Promise]:
        """The promises that did not hold."""
        return [promise for promise in self.promises if not promise.kept]
