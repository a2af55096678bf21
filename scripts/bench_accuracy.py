"""Accuracy of the whole chain, in one table.

    python scripts/bench_accuracy.py                         demo avatars with known truth, and the test data if there
    python scripts/bench_accuracy.py FOLDER_OR_FILE ...      every avatar in these places
    python scripts/bench_accuracy.py --readme                the same, and the table goes into README.md

Each avatar is fitted with default settings. `face` is the median distance of the face's vertices to the avatar's
visible surface, with and without static offsets; `vertex` the median vertex-to-vertex distance on the face where the
truth is known, or against the fit of another file of the same head. Millimetres, pixels, decibels, seconds.
"""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flame_fitting.capture.camera import transform_points
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write
from flame_fitting.fit.result import FitResult, load_fit
from flame_fitting.head.loading import load_head

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".glb", ".gltf", ".obj", ".ply", ".stl", ".off"}
TEST_AVATARS = (
    "lps_head/lps_textured.glb",
    "lps_head/lps_zup_mm.obj",
    "lps_head/LeePerrySmith_draco.glb",
    "lps_head/lps_untextured.stl",
    "valid_avatars/Asian_F_2_Casual_head.glb",
    "valid_avatars/Black_M_1_Casual_head.glb",
    "valid_avatars/Black_M_1_Casual_head_mouthopen.glb",
    "valid_avatars/White_M_1_Casual_head.glb",
    "valid_avatars/White_M_1_Casual_fullbody.glb",
    "valid_avatars/original/White_M_1_Casual.meshopt.glb",
    "makehuman_cc0/mh_female_african_young_head.obj",
    "makehuman_cc0/mh_male_young_head.obj",
    "makehuman_cc0/mh_male_young_fullbody.obj",
    "ict_facekit/sample_0.ply",
    "ict_facekit/sample_1.ply",
    "ict_facekit/sample_2.ply",
    "negative_goathead/goathead.obj",
)
TWINS = {
    "lps_zup_mm.obj": "lps_textured.glb",
    "LeePerrySmith_draco.glb": "lps_textured.glb",
    "lps_untextured.stl": "lps_textured.glb",
}
"""Other files of a head that is in the list already: their fits are compared vertex by vertex."""


@dataclass
class Row:
    """One avatar's line."""

    name: str
    metrics: dict = field(default_factory=dict)
    seconds: float = float("nan")
    vertex_mm: float = float("nan")
    vertex_against: str = ""
    surface_truth_mm: float = float("nan")
    refused: str = ""


def run_avatar(path: Path, output: Path, truth: Path | None = None, **options: object) -> Row:
    """Runs the chain on one avatar."""
    from flame_fitting import progress
    from flame_fitting.run_pipeline import RunConfig, run

    row, started = Row(path.name), time.perf_counter()
    try:
        with progress.silent(True):
            # The table is of the open head, whatever FLAME files this machine has.
            flags: dict = {"head": "open"} | options
            run(RunConfig(avatar=path, output=output, ground_truth=truth, force=True, **flags))
    except InputError as error:
        row.refused = str(error).replace(f"{path}: ", "")
        row.seconds = time.perf_counter() - started
        return row
    row.seconds = time.perf_counter() - started
    row.metrics = json.loads((output / "fit" / "metrics.json").read_text())
    face = row.metrics["regions"]["face"]
    if "to_truth_mm" in face:
        row.vertex_mm, row.vertex_against = face["to_truth_mm"]["median"], "truth"
        row.surface_truth_mm = face.get("to_truth_surface_mm", {}).get("median", float("nan"))
    return row


def vertex_difference_mm(path: Path, fit: FitResult, other_path: Path, other: FitResult) -> tuple[float, float]:
    """Median and 95 % distance between the face vertices of the fits of two files of one head.

    The similarity between the two files' coordinates is found from the files themselves (iterated closest vertices,
    started at the fits' frames), not from the fitted heads, so that a shifted or scaled fit counts as an error. In the
    other fit's head-space millimetres.
    """
    from scipy.spatial import cKDTree

    from flame_fitting.avatar.loading import load_avatar
    from flame_fitting.capture.similarity import umeyama

    source, target = load_avatar(path).vertices, load_avatar(other_path).vertices
    tree = cKDTree(target)
    matrix = np.linalg.inv(other.head_from_world) @ fit.head_from_world
    for _ in range(60):
        distance, nearest = tree.query(transform_points(matrix, source))
        near = distance <= max(float(np.quantile(distance, 0.9)), 1e-12)
        matrix = umeyama(source[near], target[nearest[near]])
    head = load_head("open")
    face = head.regions["face"].numpy()
    moved = transform_points(matrix, fit.vertices_world(head)[0][face])
    distance = other.mm_per_unit * np.linalg.norm(moved - other.vertices_world(head)[0][face], axis=1)
    return float(np.median(distance)), float(np.quantile(distance, 0.95))


def table(rows: list[Row]) -> str:
    """Markdown."""
    head = ["avatar", "face", "face without offsets", "vertex", "IoU", "PSNR held out", "landmarks", "seconds", "notes"]
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| --- " * (len(head) - 1) + "|"]
    for row in rows:
        if row.refused:
            cells = [row.name, *["" for _ in range(6)], f"{row.seconds:.0f}", "refused: " + row.refused[:90]]
        else:
            metrics = row.metrics
            stages = metrics.get("stages", {})
            bare = [s for name, s in stages.items() if name != "rgb_init_offset"]
            without = bare[-1]["regions"]["face"]["to_avatar_mm"]["median"] if bare else float("nan")
            vertex = f"{row.vertex_mm:.2f} ({row.vertex_against})" if np.isfinite(row.vertex_mm) else ""
            warnings = len(metrics.get("warnings", []))
            cells = [
                row.name,
                f"{metrics['regions']['face']['to_avatar_mm']['median']:.3f} mm",
                f"{without:.2f} mm",
                vertex and vertex + " mm",
                f"{metrics['silhouette_iou']:.3f}",
                f"{metrics['psnr_heldout_db']:.1f} dB",
                f"{metrics['landmarks']['reprojection_px']['median']:.2f} px",
                f"{row.seconds:.0f}",
                f"{warnings} warning{'s' if warnings != 1 else ''}" if warnings else "",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def demo_avatars(folder: Path, seeds: list[int]) -> list[tuple[Path, Path]]:
    """Makes demo avatars of known truth; pairs of avatar file and truth folder."""
    from flame_fitting.make_demo_avatar import MakeDemoAvatarConfig, make_demo_avatar

    out = []
    for seed in seeds:
        place = folder / f"demo_{seed}" / "avatar"
        made = make_demo_avatar(MakeDemoAvatarConfig(output=place, seed=seed))
        path = Path(getattr(made, "path", made))
        out.append((path if path.is_file() else next(path.glob("*.glb")), place))
    return out


def collect(places: list[Path]) -> list[Path]:
    """Avatar files in files and folders, sorted."""
    out: list[Path] = []
    for place in places:
        out += [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES)
    return out


def machine() -> str:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    import torch

    return f"{os.cpu_count()} cores ({name}), Python {platform.python_version()}, torch {torch.__version__}, CPU"


def write_readme(text: str) -> None:
    """Puts the table between the markers of README.md."""
    path = ROOT / "README.md"
    content = path.read_text(encoding="utf-8")
    begin, end = "<!-- bench:begin -->", "<!-- bench:end -->"
    before, rest = content.split(begin, 1)
    after = rest.split(end, 1)[1]
    with atomic_write(path) as temporary:
        temporary.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> int:
    """Fits everything asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", type=Path, help="avatar files or folders of them")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "bench_accuracy")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="demo avatars")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    parser.add_argument("--only", default="", help="only avatars whose path contains this")
    parser.add_argument("--no-photometric", action="store_true")
    arguments = parser.parse_args()
    options = {"photometric": not arguments.no_photometric}
    jobs: list[tuple[Path, Path | None]] = []
    if arguments.places:
        jobs += [(path, None) for path in collect(arguments.places)]
    else:
        jobs += list(demo_avatars(arguments.output, arguments.seeds))
        data = Path(os.environ.get("FLAME_FITTING_TEST_DATA", ROOT.parent / "shared")) / "avatars"
        found = [data / name for name in TEST_AVATARS if (data / name).is_file()]
        if not found:
            print(f"no test data at {data}: demo avatars only", file=sys.stderr)
        jobs += [(path, None) for path in found]
    rows: list[Row] = []
    fits: dict[str, tuple[Path, FitResult]] = {}
    for number, (path, truth) in enumerate(jobs):
        if arguments.only not in str(path):
            continue
        folder = arguments.output / (path.parent.parent.name if truth else f"{number:02d}_{path.stem}")
        row = run_avatar(path, folder / "run" if truth else folder, truth, **options)
        if truth is not None:
            row.name = f"{path.parent.parent.name} (known truth)"
        if not row.refused:
            fits[path.name] = path, load_fit((folder / "run" if truth else folder) / "fit")
            twin = TWINS.get(path.name)
            if twin in fits:
                row.vertex_mm, _ = vertex_difference_mm(*fits[path.name], *fits[twin])
                row.vertex_against = "to the GLB's fit"
        rows.append(row)
        print(table([row]).splitlines()[-1], flush=True)
    text = f"{table(rows)}\n\nMeasured by `python scripts/bench_accuracy.py` on {machine()}."
    print("\n" + text)
    if arguments.readme:
        write_readme(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
