"""`meshlib check --traffic`: whether the shares of a configuration are kept, by a chi-squared test for each."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshlib.cli.output import note, print_issues

if TYPE_CHECKING:
    from meshlib.cli.check import Checked
    from meshlib.explain.traffic import Split

SIGNIFICANCE = 0.001
"""A p-value below is a deviation: chance alone makes one of a thousand shares look so."""


class ObservedError(Exception):
    """The file of counts cannot be used."""


def run_traffic(options: argparse.Namespace, checked: Checked) -> int:
    """Test every split and print the results; 1 when one is not kept or the configuration has errors."""
    from meshlib.engine.runtime import Runtime
    from meshlib.explain.traffic import drawn_splits, observed_splits
    from meshlib.sources.files.snapshot import build_snapshot

    if any(issue.severity == "error" for issue in checked.issues):
        print_issues(checked.issues, sys.stderr)
        return 1
    snapshot, _ = build_snapshot(checked.loaded)
    plan = Runtime(random.Random(options.seed)).compile(snapshot, None)  # noqa: S311  it keeps no secret
    try:
        if options.observed is not None:
            splits = list(observed_splits(plan, _observed(Path(options.observed))))
        else:
            splits = list(drawn_splits(plan, options.traffic, options.seed))
    except KeyError as error:
        note(f"meshlib check: {options.observed}: nothing shares traffic under the name {error}")
        return 2
    except ObservedError as error:
        note(f"meshlib check: {options.observed}: {error}")
        return 2
    if options.json:
        print(json.dumps([_as_json(split) for split in splits], indent=2))
    else:
        _print(splits)
    return 0 if all(_kept(split) for split in splits) else 1


def _observed(path: Path) -> Mapping[str, Mapping[str, int]]:
    from meshlib.sources.files.loader import parse_values

    values, issues = parse_values(path)
    if issues:
        raise ObservedError(str(issues[0]))
    found = values[0] if len(values) == 1 else None
    if not isinstance(found, dict) or not all(isinstance(counts, dict) for counts in found.values()):
        raise ObservedError("an object {route: {cluster: count}} is wanted")
    for name, counts in found.items():
        for cluster, count in counts.items():
            if type(count) is not int or count < 0:
                raise ObservedError(f"{name}: the count of {cluster} is {count!r}, a whole number from 0 is wanted")
    return found


def _kept(split: Split) -> bool:
    return split.fit.p_value >= SIGNIFICANCE


def _print(splits: Iterable[Split]) -> None:
    shown = failed = untested = 0
    for split in splits:
        shown += 1
        failed += not _kept(split)
        if split.untested:
            untested += 1
            print(f"-     {split.name}: {split.untested}")
            continue
        total, weight = sum(split.counts.values()), sum(split.shares.values())
        print(f"{'ok  ' if _kept(split) else 'OFF '}  {split.name}: chi-squared {split.fit.statistic:.2f}, ", end="")
        print(f"{split.fit.degrees} degree(s) of freedom, p {split.fit.p_value:.3g}")
        for name in {**split.shares, **split.counts}:
            share, count = split.shares.get(name, 0.0), split.counts.get(name, 0)
            part = f"{100 * count / total:6.2f} %" if total else "     - "
            print(f"        {name}: wanted {100 * share / weight:6.2f} %, got {part} ({count})")
    left_out = f", {untested} not tested" if untested else ""
    print(f"{shown} place(s) share traffic, {failed} not as written{left_out}")


def _as_json(split: Split) -> dict[str, Any]:
    fit = split.fit
    return {
        "name": split.name,
        "shares": dict(split.shares),
        "counts": dict(split.counts),
        "chi_squared": fit.statistic if fit.statistic < float("inf") else None,
        "degrees": fit.degrees,
        "p_value": fit.p_value,
        "ok": _kept(split),
        "untested": split.untested or None,
    }
