"""Freezes every metric of six avatars, so that a change of the code can be held against it.

    python scripts/make_baseline.py --label NAME             runs them; the figures go into docs/baseline.json and .md
    python scripts/make_baseline.py --compare                runs them; says which figures left their bounds, exit 1
    python scripts/make_baseline.py --compare --fits FOLDER  the same, and the fits' vertices against those in FOLDER
    ... --output FOLDER --reuse                              figures of the runs in FOLDER, nothing runs anew

The avatars: a demo avatar of known truth, three scans and generated heads, a MakeHuman head, and a head of FLAME's
format fitted with its own model. Those that the test data lack are left out, and said. Default settings, seed 0, CPU.
The bounds of --compare: 0.005 mm for distances of the face, 0.5 % for every other figure (see `Bounds`).
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accuracy.baseline import differences, numbers, page
from bench_accuracy import Row, demo_avatars, machine, run_avatar, write_truth

from flame_fitting.files import atomic_write
from flame_fitting.fit.result import load_fit
from flame_fitting.fit.sources import open_fit
from flame_fitting.manifest import read_manifest
from flame_fitting.version import __version__

ROOT = Path(__file__).resolve().parent.parent
FROZEN = ROOT / "docs" / "baseline.json"
PAGE = ROOT / "docs" / "baseline.md"
STANDIN = "standin/flame2023_standin.pkl"


@dataclass(frozen=True)
class Case:
    """One avatar of the baseline."""

    name: str
    avatar: str
    """Path in the test data; empty for the demo avatar."""
    head: str = "open"
    """`--head`; a path in the test data where it has a suffix."""


CASES = (
    Case("demo", ""),
    Case("LPS", "avatars/lps_head/lps_textured.glb"),
    Case("White_M_1", "avatars/valid_avatars/White_M_1_Casual_head.glb"),
    Case("Asian_F_2", "avatars/valid_avatars/Asian_F_2_Casual_head.glb"),
    Case("MakeHuman", "avatars/makehuman_cc0/mh_male_young_head.obj"),
    Case("stand-in", "standin/sample_heads/head_00.glb", STANDIN),
)


def run_cases(output: Path, data: Path, only: str = "", reuse: bool = False) -> dict[str, dict[str, Any]]:
    """Runs the chain on every case; metrics.json by name of the case."""
    found = {}
    for case in CASES:
        folder = output / case.name
        if only not in case.name:
            continue
        if case.avatar and not (data / case.avatar).is_file():
            print(f"{case.name}: left out, {data / case.avatar} is not there", file=sys.stderr)
            continue
        if reuse:
            found[case.name] = json.loads((folder / "fit" / "metrics.json").read_text(encoding="utf-8"))
            continue
        row = _run(case, folder, data)
        if row.refused:
            raise SystemExit(f"{case.name}: refused: {row.refused}")
        found[case.name] = row.metrics
        face = row.metrics["regions"]["face"]["to_avatar_mm"]
        print(f"{case.name}: face {face['median']:.3f} mm (95 %: {face['p95']:.2f}), {row.seconds:.0f} s", flush=True)
    return found


def _run(case: Case, folder: Path, data: Path) -> Row:
    if not case.avatar:
        avatar, truth = demo_avatars(folder, [0])[0]
        return run_avatar(avatar, folder, truth)
    avatar = data / case.avatar
    if case.head == "open":
        return run_avatar(avatar, folder)
    truth = write_truth(avatar, folder.with_name(f"{folder.name}_truth"))
    return run_avatar(avatar, folder, truth, head=str(data / case.head))


def vertex_differences(folder: Path, other: Path) -> list[str]:
    """Distances in mm between the face vertices of the fits in two folders of runs, one line for each case."""
    lines = []
    for case in CASES:
        here, there = folder / case.name / "fit", other / case.name / "fit"
        if read_manifest(here) is None or read_manifest(there) is None:
            continue
        (fit, head, _), before = open_fit(here), load_fit(there)
        face = head.regions["face"].numpy()
        apart = np.linalg.norm(fit.vertices_world(head)[0][face] - before.vertices_world(head)[0][face], axis=1)
        apart *= before.mm_per_unit
        lines.append(
            f"{case.name}: face vertices {np.median(apart):.4f} mm apart (95 %: {np.quantile(apart, 0.95):.4f})"
        )
    return lines


def main() -> int:
    """Runs the cases; freezes or compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "baseline")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--reuse", action="store_true", help="take the runs that are in --output already")
    parser.add_argument("--fits", type=Path, help="folder of runs whose vertices are compared, too")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--label", help="freeze the figures under this name")
    what.add_argument("--compare", action="store_true", help="hold the figures against the last label")
    arguments = parser.parse_args()
    data = Path(os.environ.get("FLAME_FITTING_TEST_DATA", ROOT.parent / "shared"))
    ran = run_cases(arguments.output, data, arguments.only, arguments.reuse)
    measured = {name: dict(numbers(metrics)) for name, metrics in ran.items()}
    frozen = json.loads(FROZEN.read_text(encoding="utf-8")) if FROZEN.is_file() else {}
    if arguments.label:
        frozen[arguments.label] = {"version": __version__, "machine": machine(), "metrics": measured}
        for path, text in ((FROZEN, json.dumps(frozen, indent=1) + "\n"), (PAGE, page(frozen))):
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        print(f"{len(measured)} avatars -> {PAGE}")
        return 0
    if not frozen:
        raise SystemExit(f"{FROZEN} is not there: freeze figures first, with --label.")
    reference = frozen[list(frozen)[-1]]["metrics"]
    bad = {name: differences(reference.get(name, {}), figures) for name, figures in measured.items()}
    for name, lines in bad.items():
        print(f"{name}: {'as before' if not lines else f'{len(lines)} figures differ'}")
        print("".join(f"  {line}\n" for line in lines), end="")
    if arguments.fits is not None:
        print("\n".join(vertex_differences(arguments.output, arguments.fits)))
    return 1 if any(bad.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
