"""Identities x expressions: builds the cases once, fits each by itself with the program as it is, measures, tells.

Folders below --output: `expressions/cases/<case>` (captures and truths, kept), `expressions/<label>/<case>/fit`,
`expressions/<label>/results.jsonl` and `table.md`.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .anny_heads import EXPRESSIONS as ANNY_EXPRESSIONS
from .anny_heads import PERSONS as ANNY_PERSONS
from .anny_heads import AnnyCase, avatar_of, make_heads
from .bench import processes
from .cases import Places, default_data, glb_of
from .expression_table import table
from .expressions import EXPRESSIONS, PERSONS, ExpressionCase, build, expression_cases

RESULTS, ROOT = "results.jsonl", Path(__file__).resolve().parents[2]
SMALL = (2, ("rest", "blink", "smile"))
"""Persons and expressions of --small."""
FILES = (
    ("Black_M_1", "rest", "valid_avatars/Black_M_1_Casual_head.glb"),
    ("Black_M_1", "mouth_open", "valid_avatars/Black_M_1_Casual_head_mouthopen.glb"),
    ("White_M_1", "rest", "valid_avatars/White_M_1_Casual_head.glb"),
    ("Asian_F_2", "rest", "valid_avatars/Asian_F_2_Casual_head.glb"),
)
"""Persons and expressions of avatars in the test data, of which no truth is known."""
ANNY_HEADS = "anny_heads.npz"


@dataclass(frozen=True)
class Job:
    """A case and where it is built and fitted."""

    name: str
    group: str
    """known (truth known vertex by vertex), anny (a surface), pair (two files of a person, no truth)."""
    person: str
    expression: str
    case: Any
    folder: Path
    fit: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this mode."""
    group = parser.add_argument_group("identities x expressions")
    group.add_argument("--expressions", nargs="*", metavar="NAME", help="run these expressions (all) of each person")
    group.add_argument("--persons", type=int, default=len(PERSONS), help="how many (--small: 2, and 3 expressions)")
    group.add_argument("--groups", nargs="*", default=["known", "anny", "pair"], help="known, anny, pair (all)")
    group.add_argument("--options", default="", help="flags of `fit`, in one string: --options=--expressive")
    group.add_argument("--label", default="", help="folder of the fits (default: made of --options)")
    group.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    group.add_argument("--synthetic", action="store_true", help="the truth's landmarks with noise, without evidence")
    group.add_argument("--measure-only", action="store_true", help="measure the fits that are there")
    group.add_argument("--table", type=Path, nargs="*", help="print the tables of these results.jsonl; run nothing")


def wanted(arguments: argparse.Namespace) -> bool:
    """Whether the command line asks for this mode."""
    return arguments.expressions is not None or arguments.table is not None


def main(arguments: argparse.Namespace) -> int:
    """Runs the mode."""
    if arguments.table is not None:
        for path in arguments.table:
            print(f"{path}\n\n{table(read(path))}\n")
        return 0
    base = arguments.output / "expressions"
    label = arguments.label or "_".join(part.strip("-") for part in shlex.split(arguments.options)) or "default"
    places = Places(arguments.data or default_data(), None, arguments.model_path)
    jobs = jobs_of(arguments, base, base / label, places)
    (base / label).mkdir(parents=True, exist_ok=True)
    started, rows = time.perf_counter(), []
    results = base / label / RESULTS
    if not arguments.build_only:
        results.write_text("", encoding="utf-8")
    with processes(arguments.jobs, 1) as pool:
        # those that are built are fitted beside those that are not yet
        waiting: dict[Future, Job] = {}
        for job in jobs:
            options = shlex.split(arguments.options)
            if arguments.measure_only and not job.fit.is_dir():
                continue
            waiting[pool.submit(run, job, places, options, arguments.build_only, arguments.measure_only)] = job
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                rows.append(row_of(waiting.pop(future), future))
                if not arguments.build_only:
                    with results.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(rows[-1]) + "\n")
                report(rows[-1], len(rows), len(jobs), time.perf_counter() - started)
        if arguments.build_only:
            return 0
        rows += agreements(pool, jobs, rows)
    rows.sort(key=lambda row: [job.name for job in jobs].index(row["case"]) if row["group"] != "between" else len(jobs))
    results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = table(rows)
    (base / label / "table.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\n{time.perf_counter() - started:.0f} s -> {base / label}")
    return int(any("error" in row for row in rows))


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def jobs_of(arguments: argparse.Namespace, base: Path, output: Path, places: Places) -> list[Job]:
    """What the command line asks for."""
    persons, names = (SMALL[0], list(SMALL[1])) if arguments.small else (arguments.persons, arguments.expressions)
    unknown = set(names or []) - {one.name for one in EXPRESSIONS}
    if unknown:
        raise SystemExit(f"--expressions {' '.join(sorted(unknown))}: there are {[one.name for one in EXPRESSIONS]}")
    jobs = []
    if "known" in arguments.groups:
        for one in expression_cases(persons, names or None, synthetic=arguments.synthetic):
            place = base / "cases" / one.name
            jobs.append(
                Job(one.name, "known", str(one.person), one.expression.name, one, place, output / one.name / "fit")
            )
    if "anny" in arguments.groups:
        heads = anny_heads(base)
        expressions = [name for name in ANNY_EXPRESSIONS if not names or name in names]
        for seed in ANNY_PERSONS[:persons] if heads is not None else ():
            for expression in expressions:
                own = AnnyCase(seed, expression, str(heads))
                place = base / "cases" / own.name
                jobs.append(Job(own.name, "anny", str(seed), expression, own, place, output / own.name / "fit"))
    if "pair" in arguments.groups:
        for who, expression, file in FILES[:2] if arguments.small else FILES:
            path = places.data / "avatars" / file
            if not path.is_file():
                print(f"{path} is not there: left out", flush=True)
                continue
            name = path.stem
            jobs.append(Job(name, "pair", who, expression, path, base / "cases" / name, output / name / "fit"))
    return jobs


def anny_heads(base: Path) -> Path | None:
    """The file of anny's heads, made now if it is not there; None where anny is missing, too."""
    path = base / ANNY_HEADS
    if not path.is_file():
        base.mkdir(parents=True, exist_ok=True)
        try:
            make_heads(path)
        except ImportError as error:
            print(f"anny's heads are left out: {error}. Install anny, or bring {path}", flush=True)
            return None
    return path


def row_of(job: Job, future: Future) -> dict[str, Any]:
    """A finished job's numbers, or why there are none."""
    about = {"case": job.name, "group": job.group, "person": job.person, "expression": job.expression}
    if (error := future.exception()) is not None:
        return about | {"error": f"{type(error).__name__}: {error}"}
    return about | future.result()


def run(job: Job, places: Places, options: list[str], build_only: bool, measure_only: bool) -> dict[str, Any]:
    """Builds, fits and measures one case, in a process of its own."""
    from flame_fitting import progress

    with progress.silent(True):
        if measure_only:
            return measured(job)
        made = built(job, places)
        if build_only:
            return {"build_seconds": made}
        return {"build_seconds": made, "fit_seconds": fitted(job, options)} | measured(job)


def built(job: Job, places: Places) -> float:
    """Makes a case unless it is there; seconds."""
    started, mark = time.perf_counter(), job.folder / "made.json"
    about = json.dumps({"case": repr(job.case)})
    if not mark.is_file() or mark.read_text() != about:
        if isinstance(job.case, ExpressionCase):
            build(job.case, job.folder, places)
        else:
            build_file(job, places)
        mark.write_text(about)
    return time.perf_counter() - started


def build_file(job: Job, places: Places) -> None:
    """The capture of an avatar's file, by the program's own commands; writes anny's heads into files first."""
    import numpy as np

    path = job.case
    (job.folder / "avatar").mkdir(parents=True, exist_ok=True)
    if isinstance(job.case, AnnyCase):
        avatar, truth = avatar_of(Path(job.case.heads), job.case)
        path = job.folder / "avatar" / "avatar.glb"
        path.write_bytes(glb_of(avatar))
        np.savez_compressed(job.folder / "avatar" / "truth.npz", **truth)  # type: ignore[arg-type]
    capture, weights = job.folder / "capture", () if places.model_path is None else ("--model-path", places.model_path)
    command(["render", path, "--output", capture, "--head", "open", "--force", *weights], job.folder / "build.log")
    command(["detect", capture, *weights], job.folder / "build.log")


def fitted(job: Job, options: list[str]) -> float:
    """Fits a capture by the program's own command; seconds. What it says goes into fit.log beside the fit."""
    started = time.perf_counter()
    job.fit.parent.mkdir(parents=True, exist_ok=True)
    chosen = [] if "--head" in options else ["--head", "open"]
    quiet = ["--force", "--log.no-overlays", "--log.no-tensorboard"]
    command(["fit", job.folder / "capture", "--output", job.fit, *quiet, *chosen, *options], job.fit.parent / "fit.log")
    return time.perf_counter() - started


def command(arguments: list[Any], log: Path) -> None:
    """Runs one of the program's commands; what it says goes into a file."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with log.open("w") as stream:
        line = [sys.executable, "-m", "flame_fitting", *map(str, arguments)]
        done = subprocess.run(line, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    if done.returncode not in (0, 3):
        said = " ".join(log.read_text().split())[-300:]
        raise RuntimeError(f"{arguments[0]} failed ({done.returncode}): {said}; {log}")


def measured(job: Job) -> dict[str, Any]:
    """All numbers of a fit."""
    from .expression_measure import measure_expression
    from .file_measure import measure_file

    if isinstance(job.case, ExpressionCase):
        return measure_expression(job.folder, job.fit)
    if isinstance(job.case, AnnyCase):
        return measure_file(job.folder / "avatar" / "avatar.glb", job.fit, job.folder / "avatar" / "truth.npz")
    return measure_file(job.case, job.fit)


def agreements(pool: ProcessPoolExecutor, jobs: list[Job], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Distances between the neutral heads of all pairs of fits, of one person (`within`) and of two (`between`)."""
    failed = {row["case"] for row in rows if "error" in row}
    good = [job for job in jobs if job.fit.is_dir() and job.name not in failed]
    pairs = [
        (a, b)
        for k, a in enumerate(good)
        for b in good[k + 1 :]
        if a.person == b.person or (a.expression == b.expression and a.group == b.group)
    ]
    found = pool.map(agreement_of, [a.fit for a, _ in pairs], [b.fit for _, b in pairs], chunksize=8)
    return [
        {
            "group": "between",
            "case": f"{a.name} {b.name}",
            "persons": [a.person, b.person],
            "of": a.group,
            "kind": "within" if a.person == b.person else "between",
        }
        | numbers
        for (a, b), numbers in zip(pairs, found, strict=True)
    ]


def agreement_of(one: Path, other: Path) -> dict[str, float]:
    """Of two fits."""
    from flame_fitting.fit.result import load_fit
    from flame_fitting.report.same_identity import agreement, neutral_vertices

    from .expression_measure import model

    head = model()[0]
    found = agreement(head, *(neutral_vertices(load_fit(path), head) for path in (one, other)))
    return {f"{name}_{key}_mm": stats[key] for name, stats in found.items() for key in ("median", "p95")}


def report(row: dict[str, Any], number: int, count: int, seconds: float) -> None:
    """One line as a case is done."""
    if "error" in row:
        text = row["error"][:300]
    elif "neutral_face_mm" in row:
        text = (
            f"neutral {row['neutral_face_mm']:.2f} / {row['neutral_face_p95_mm']:.2f} mm, lips "
            f"{row['neutral_lips_mm']:.2f}, lids {row['neutral_lids_mm']:.2f}"
        )
    else:
        text = f"built in {row['build_seconds']:.0f} s" if "fit_seconds" not in row else "measured"
    print(f"{number}/{count} ({seconds:.0f} s) {row['case']:<28} {text}", flush=True)
