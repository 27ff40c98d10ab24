"""The end: promises over the whole run, and the measured summary."""

from __future__ import annotations

import sys
from collections import Counter

from rich import box
from rich.console import Console
from rich.table import Table

from examples.demo.calls import percentile
from examples.demo.receipts import LINES
from examples.demo.stage import Stage

EFFECT_LIMIT = 1.0  # seconds, on any machine; what is usual here is in the summary, and `make bench` measures it

GRPC = frozenset({"receipt", "statement"})


def judge(stage: Stage) -> None:
    """The promises that only the whole run can keep or break."""
    calls, effects = stage.ledger.all(), stage.results.effects
    failed = [call for call in calls if call.failed]
    kinds = Counter(f"{call.kind} {call.answer}" for call in failed).most_common(3)
    why = "".join(f"; {count} x {what}" for what, count in kinds)
    torn = sum(call.continued for call in calls if call.kind not in GRPC)
    asked_again = f"; {torn} cut off in the middle by kill -9, and asked again" if torn else ""
    measured = f"{len(failed)} of {len(calls)}{why}{asked_again}"
    stage.promise("no call failed", bool(calls) and not failed, measured)
    _judge_grpc(stage)
    slowest = max(effects, default=0.0)
    kept = bool(effects) and slowest < EFFECT_LIMIT
    measured = f"{len(effects)} edits, slowest {slowest * 1000:.0f} ms"
    stage.promise(f"every edit takes effect within {EFFECT_LIMIT:g} s", kept, measured)


def _judge_grpc(stage: Stage) -> None:
    calls = [call for call in stage.ledger.all() if call.kind in GRPC]
    if not calls:
        return  # the demo on Consul has no gRPC
    failed = sum(call.failed for call in calls)
    statements = [call for call in calls if call.kind == "statement"]
    broken = sum(call.continued for call in statements)
    measured = (
        f"{len(calls) - len(statements)} receipts, {len(statements)} streams of {LINES} lines"
        f" ({broken} broken in the middle and continued by the caller), {failed} failed"
    )
    stage.promise("no gRPC call failed, and every line of every stream came once", not failed, measured)


def print_summary(stage: Stage) -> None:
    """A table on standard output; then what broke, if anything did."""
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(_figures(stage))
    console.print(_promises(stage))
    broken = stage.results.broken
    if broken:
        console.print(
            f"[bold red]{len(broken)} broken:[/] " + ", ".join(promise.text for promise in broken), soft_wrap=True
        )
    else:
        console.print(f"[bold green]all {len(stage.results.promises)} promises kept[/]")


def _figures(stage: Stage) -> Table:
    calls, effects = stage.ledger.all(), stage.results.effects
    charges = [call.took for call in calls if call.kind == "charge"]
    seconds = max((call.began for call in calls), default=0.0) - min((call.began for call in calls), default=0.0)
    table = Table(title="Measured", box=box.SIMPLE, title_justify="left", show_header=False)
    rows = [
        ("calls", f"{len(calls)} in {seconds:.1f} s, {len(calls) / max(seconds, 0.1):.0f} a second"),
        ("failed", str(sum(call.failed for call in calls))),
        ("retried", str(sum(call.attempts > 1 for call in calls))),
        ("answered 429 by the limit", str(sum(call.answer == 429 for call in calls))),
        ("fallbacks for optional hints", str(sum(call.answer in (503, "circuit open") for call in calls))),
        ("latency of a charge, whole run", f"p50 {_ms(charges, 0.5)}, p99 {_ms(charges, 0.99)}"),
        *_grpc_figures(stage),
        ("change to effect", f"p50 {_ms(effects, 0.5)}, slowest {_ms(effects, 1.0)}, {len(effects)} edits"),
        *stage.results.figures,
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _grpc_figures(stage: Stage) -> list[tuple[str, str]]:
    took = [call.took for call in stage.ledger.all() if call.kind == "receipt"]
    if not took or stage.certificates is None:
        return []
    return [
        ("latency of a receipt (gRPC), whole run", f"p50 {_ms(took, 0.5)}, p99 {_ms(took, 0.99)}"),
        ("certificates issued", f"{stage.certificates.issued}, every call is mutual TLS"),
    ]


def _promises(stage: Stage) -> Table:
    table = Table(title="Promises", box=box.SIMPLE, title_justify="left", show_header=False)
    for promise in stage.results.promises:
        table.add_row("[green]kept[/]" if promise.kept else "[bold red]BROKEN[/]", promise.text, promise.measured)
    return table


def _ms(seconds: list[float], share: float) -> str:
    return f"{percentile(seconds, share) * 1000:.1f} ms"
