"""Talking heads of known truth, tracked by presets side by side: seconds, memory, errors, jitter, gain, PSNR.

    python scripts/bench_track.py                                    on a CPU: 192 px, seed 0, cases at full length
    python scripts/bench_track.py --device cuda --seeds 0 1 2        on a GPU: 512 px
    python scripts/bench_track.py --cases rig --landmarks noisy biased --presets track --work W

| case | what |
|---|---|
| rig | 8 known cameras x 12 timesteps, and 2 held-out cameras |
| video | 1 camera x 40 timesteps, whose focal length is unknown; every eighth picture shows no head |
| turn | the same with all pictures, turning by 30 degrees to both sides, the distance changing by 20 % |
| still | 8 cameras x 12 timesteps in which nothing moves |
| still_video | 1 camera x 40 timesteps in which nothing moves |

Heads: the open head, and the FLAME-format stand-in of the test data (FLAME_FITTING_TEST_DATA). Identity of 1 sigma,
expressions of 0.75 sigma, jaw to 0.25 rad, a head that turns by 12 degrees to both sides and moves 3 cm, smooth offsets
of 1.5 mm (root mean square over the face), skin of its own under a soft light. All 68 iBUG points are given in each
tracked picture: as they are, with noise of 1.2 px (at 512 px), or with that and a fixed bias of 1 mm each in space.

Errors are of the face, all vertices alike; with one camera after a similarity of each timestep. Jitter is the root mean
square of the error's second difference. Gain is the slope of fitted on true motion in the head's own frame, with one
camera at the true face's size, which one camera cannot tell. PSNR is that of whole pictures, which are mostly
background, and of the true head's pixels. Frames left out count in lines of their own and in the PSNR held out. Seconds
are the program's own (from the folder to the result); each track runs in a process of its own, and its first use of a
GPU counts. In --work sequences are kept, and tracks as long as the program does not change: a bench that was stopped
goes on there. tracks/*/sheet.png shows each: true pictures, the fit, its mesh over them, its vertices' errors to 3 mm.
"""

import argparse
import dataclasses
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flame_fitting import progress
from flame_fitting.errors import InputError
from scripts.tracking.cases import BY_NAME, DEFAULT_CASES, HEADS, head_named
from scripts.tracking.making import LANDMARKS, Wanted, made
from scripts.tracking.measure import measured
from scripts.tracking.running import Job, fit_folder, tracked
from scripts.tracking.tables import Row, flattened, machine, table

CPU_SIZE, GPU_SIZE = 192, 512


def rows_of(given: argparse.Namespace, work: Path, heads: Iterable[str]) -> Iterable[Row]:
    """Tracks and measures everything asked for, one after the other."""
    for head in heads:
        for case in given.cases:
            for seed in given.seeds:
                with progress.silent():
                    sequence = made(Wanted(case, head, seed, given.size, given.frames), work)
                for preset, landmarks in product(given.presets, given.landmarks):
                    place, photometric = str(sequence.absolute()), not given.no_photometric
                    yield row_of(Job(place, head, preset, landmarks, photometric, given.device), case, seed)


def row_of(job: Job, case: str, seed: int) -> Row:
    """One track."""
    started, name = time.perf_counter(), f"{job.head} {case} seed {seed} {job.preset} {job.landmarks}"
    print(f"{name} ...", file=sys.stderr, flush=True)
    row = Row(job.head, case, job.preset, job.landmarks, seed)
    record = tracked(job)
    if "error" in record:
        row.error = record["error"]
        print(f"{name}: {row.error}", file=sys.stderr, flush=True)
        return row
    kind, sequence = BY_NAME[case], Path(job.sequence)
    frames = Wanted(**json.loads((sequence / "made.json").read_text())).count
    left_out = kind.left_out(frames)
    with progress.silent():
        head = head_named(job.head).spec
        numbers = measured(sequence, fit_folder(job), head, left_out, kind.monocular, job.folder / "sheet.png")
    row.numbers, row.warnings = flattened(numbers, record), record["warnings"]
    print(
        f"{name}: {row.numbers['surface_median']:.2f} mm to the surface, {row.numbers['vertex_median']:.2f} mm vertex, "
        f"jitter {row.numbers['jitter']:.3f} mm, {row.numbers['seconds.all']:.0f} s "
        f"({time.perf_counter() - started:.0f} s here)",
        file=sys.stderr,
        flush=True,
    )
    return row


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(BY_NAME), default=list(DEFAULT_CASES))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--presets", nargs="+", choices=("track", "vhap"), default=["track", "vhap"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--size", type=int, default=0, help="of the square pictures, px (192 on a CPU, 512 on a GPU)")
    parser.add_argument("--frames", type=int, default=0, help="timesteps, other than the case's own")
    parser.add_argument("--landmarks", nargs="+", choices=LANDMARKS, default=["noisy"])
    parser.add_argument("--no-photometric", action="store_true", help="landmarks alone")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="all numbers of all seeds as a file, too")
    parser.add_argument("--work", type=Path, help="folder that keeps sequences and finished tracks")
    given = parser.parse_args()
    # a bench that is told to stop takes the track that it runs with it
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    from flame_fitting.render.backend import choose_device

    try:
        given.device = str(choose_device(given.device).type if given.device == "auto" else given.device)
        given.size = given.size or (GPU_SIZE if given.device.startswith("cuda") else CPU_SIZE)
        heads = [head for head in given.heads if not head_named(head).missing]
        for head in set(given.heads) - set(heads):
            print(f"--heads {head} is left out: {head_named(head).missing}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch:
            rows = list(rows_of(given, given.work or Path(scratch), heads))
    except InputError as error:
        print(f"bench_track: {error}", file=sys.stderr)
        return 2
    text = table(rows)
    stages = "landmarks alone" if given.no_photometric else "landmarks and pictures"
    print(f"\n{machine()}; {given.size} px, {stages}\n\n{text}\n")
    for row in rows:
        for warning in [f"no result: {row.error}"] * bool(row.error) + row.warnings:
            print(f"{row.head} {row.case} seed {row.seed} {row.preset} {row.landmarks}: {warning}")
    if given.json is not None:
        content = {"machine": machine(), "options": vars(given), "rows": [dataclasses.asdict(row) for row in rows]}
        given.json.write_text(json.dumps(content, indent=1, default=str))
    return 1 if any(row.error for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
