"""The story live on a terminal: who gets what share, how fast, what is retried, ejected, limited, and promised."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from examples.demo.calls import Call, percentile
from examples.demo.plain import EventWords
from examples.demo.promises import Promise
from examples.demo.stage import Stage
from meshlib.balancing.base import Host
from meshlib.engine.events import Event

WINDOW = 2.0  # seconds that shares and latencies are taken over
TABLE = f"the last {WINDOW:g} s: share of charges, latency in ms"
FRAMES = 5  # a second
NARROW = 100  # columns; below, bars are short
CLUSTERS = {"stable": "", "canary": "", "hints": "optional", "receipts": "gRPC"}  # and what stands for a share


class Dashboard:
    """A screen that draws itself from the stage; use as a context manager."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._words = EventWords(stage.names)
        self._console = Console()
        self._title = ""
        self._lines: deque[Text] = deque(maxlen=60)
        self._began = time.monotonic()
        self._drawing = threading.Lock()  # between the frames' thread and the lines that come from callers' threads
        self._live = Live(console=self._console, screen=True, refresh_per_second=FRAMES, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    # ------------------------------------------------------------------ what is told

    def act(self, title: str) -> None:
        """The heading of all that follows."""
        self._title = title
        self._add(Text(title, "bold cyan"))

    def say(self, text: str) -> None:
        """A line in the log."""
        self._add(Text(f"{time.monotonic() - self._began:5.1f}  {text}"))

    def event(self, event: Event) -> None:
        """A line in the log, unless it would be one of many."""
        if (text := self._words.of(event)) is not None:
            self._add(Text(f"{time.monotonic() - self._began:5.1f}  {text}", "yellow"))

    def promise(self, promise: Promise) -> None:
        """A line in the log; kept promises also stand in their own panel."""
        style = "green" if promise.kept else "bold red"
        self._add(Text(f"       {'kept' if promise.kept else 'BROKEN'}: {promise.text}: {promise.measured}", style))

    def _add(self, line: Text) -> None:
        with self._drawing:
            self._lines.append(line)

    # ------------------------------------------------------------------ what is drawn

    def _draw(self) -> RenderableType:
        layout = Layout()
        layout.split_column(
            Layout(self._header(), size=4),
            Layout(
                Panel(self._traffic(), title=TABLE, border_style="dim"),
                size=len(self._stage.names) + 7,
            ),
            Layout(name="below"),
        )
        layout["below"].split_row(Layout(self._log(), ratio=3), Layout(self._promises(), ratio=2))
        return layout

    def _header(self) -> Panel:
        stage = self._stage
        calls = stage.ledger.all()
        failed = sum(call.failed for call in calls)
        plane = getattr(stage, "control_plane", None)
        up = plane is not None and plane.running
        line = Text.assemble(
            f"edit {_revision(calls)}, control plane ",
            ("serves" if up else "DOWN", "green" if up else "bold red"),
            f"   {len(calls)} calls, ",
            (f"{failed} failed", "bold red" if failed else "bold green"),
            f", {sum(call.attempts > 1 for call in calls)} retried",
            f", {sum(call.answer == 429 for call in calls)} limited",
        )
        elapsed = f"{time.monotonic() - self._began:.0f} s"
        if stage.certificates is not None:
            elapsed = f"mTLS, {stage.certificates.issued} certificates issued, {elapsed}"
        return Panel(
            Group(Text(self._title, "bold cyan"), line), title="meshlib", subtitle=elapsed, border_style="cyan"
        )

    def _traffic(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1, 0, 0), pad_edge=False)
        for name, width in (("cluster", 8), ("instance", 10), ("share", 11)):
            table.add_column(name, no_wrap=True, min_width=width)
        for name in ("calls/s", "p50", "p99", "retries"):
            table.add_column(name, justify="right", no_wrap=True, min_width=max(4, len(name)))
        table.add_column("state", no_wrap=True, min_width=13)
        calls = self._stage.ledger.since(time.monotonic() - WINDOW)
        clusters = self._stage.mesh.plan.clusters if calls else {}
        total = sum(call.kind == "charge" for call in calls)
        for name in CLUSTERS:
            for host in clusters[name].balancer.hosts if name in clusters else ():
                mine = [call for call in calls if call.cluster == name and call.endpoint == host.address]
                table.add_row(*self._row(name, host, mine, total))
        return table

    def _row(self, cluster: str, host: Host, calls: list[Call], total: int) -> tuple[str | Text, ...]:
        took = [call.took for call in calls if call.kind != "statement"]  # a stream takes as long as it has lines
        share = sum(call.kind == "charge" for call in calls) / max(1, total)
        bar = "█" * round(share * (6 if self._console.width < NARROW else 20))
        return (
            cluster,
            self._stage.names.get(host.address, host.address),
            Text(CLUSTERS[cluster] or f"{share:4.0%} {bar}", "cyan"),
            f"{len(calls) / WINDOW:.0f}",
            _milliseconds(took, 0.5),
            _milliseconds(took, 0.99),
            str(self._stage.retried[cluster, host.address] or "-"),
            self._state(cluster, host),
        )

    def _state(self, cluster: str, host: Host) -> Text:
        name = self._stage.names.get(host.address, "")
        breaker = getattr(self._stage.mesh.plan.clusters[cluster].breaker, "current_state", "closed")
        if name and not self._stage.instances[name].running:
            return Text("dead", "bold red")
        if (ejection := host.cell.ejection) is not None:
            return Text(f"ejected {max(0.0, ejection.until - time.monotonic()):.1f} s", "yellow")
        return Text("healthy", "green") if str(breaker) == "closed" else Text(f"circuit {breaker}", "yellow")

    def _log(self) -> Panel:
        with self._drawing:
            lines = list(self._lines)
        return self._latest("what happens", lines)

    def _promises(self) -> Panel:
        return self._latest("promises", [_checked(promise) for promise in self._stage.results.promises])

    def _latest(self, title: str, lines: list[Text]) -> Panel:
        """The last lines that there is room for under the header and the table."""
        room = max(3, self._console.height - len(self._stage.names) - 13)
        shown = (Text(line.plain, line.style, no_wrap=True, overflow="ellipsis") for line in lines[-room:])
        return Panel(Group(*shown), title=title, border_style="dim")


def _checked(promise: Promise) -> Text:
    return Text(f"{'✓' if promise.kept else '✗'} {promise.text}", "green" if promise.kept else "bold red")


def _revision(calls: Sequence[Call]) -> int | str:
    return next((call.revision for call in reversed(calls) if call.revision is not None), "-")


def _milliseconds(seconds: list[float], share: float) -> str:
    return f"{percentile(seconds, share) * 1000:.3g}" if seconds else "-"
