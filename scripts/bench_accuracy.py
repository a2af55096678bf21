"""Accuracy of the whole chain, in one table, and heads of known truth in a second one.

    python scripts/bench_accuracy.py                         demo avatars with known truth, and the test data if there
    python scripts/bench_accuracy.py FOLDER_OR_FILE ...      every avatar in these places
    python scripts/bench_accuracy.py --readme                the same, and the tables go into README.md
    python scripts/bench_accuracy.py --only-flame            only the FLAME-format heads of known truth in the test data
    python scripts/bench_accuracy.py --cases [PART ...]      cases of known truth x methods (see docs/accuracy.md)
    python scripts/bench_accuracy.py --expressions           identities x expressions of known truth (docs/accuracy.md)
    python scripts/bench_accuracy.py --merge results.jsonl --doc     the tables of docs/accuracy.md from their results

Each avatar is fitted with default settings. `face` is the median distance of the face's vertices to the avatar's
visible surface, with and without static offsets; `vertex` the median vertex-to-vertex distance on the face where the
truth is known, or against the fit of another file of the same head. Millimetres, pixels, decibels, seconds.

Against a truth nothing is aligned: both heads stand in the avatar's coordinates, and the millimetres are the truth's.
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
from accuracy import bench as cases
from accuracy import expression_bench as expressions

from flame_fitting.capture.camera import transform_points
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write
from flame_fitting.fit.result import FitResult, load_fit
from flame_fitting.fit.stage_config import PipelineConfig
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


FLAME_HEADS = (
    *(("standin/flame2023_standin.pkl", f"standin/sample_heads/head_{number:02d}.glb") for number in range(3)),
    *(
        ("flame2023_open/flame2023_open_reduced.npz", f"flame2023_open/gt_{name}.ply")
        for name in ("v3_ORB", "rand_a_jawopen")
    ),
)
"""Head models of FLAME's format and avatars made from them, in the test data."""
FLAME_MASKS = "standin/FLAME_masks_standin.pkl"
"""Masks for models of FLAME's topology."""


@dataclass
class Job:
    """One run of the chain."""

    avatar: Path
    folder: Path
    name: str
    truth: Path | None = None
    options: dict = field(default_factory=dict)


@dataclass
class Row:
    """One avatar's line."""

    name: str
    head: str = "open"
    metrics: dict = field(default_factory=dict)
    seconds: float = float("nan")
    vertex_mm: float = float("nan")
    vertex_against: str = ""
    true_mm_per_unit: float = float("nan")
    refused: str = ""
    wants_truth: bool = False
    """Whether its truth is known."""

    @property
    def size_by_face(self) -> float:
        """Millimetres in one unit by the face alone, whatever the fit took."""
        return float(self.metrics.get("mm_per_unit_by_face", self.metrics["mm_per_unit"]))


def run_avatar(path: Path, output: Path, truth: Path | None = None, **options: object) -> Row:
    """Runs the chain on one avatar."""
    from flame_fitting import progress
    from flame_fitting.run_pipeline import RunConfig, run

    row, started = Row(path.name, wants_truth=truth is not None), time.perf_counter()
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
    row.head = row.metrics["head_model"]["name"]
    if truth is not None and "to_truth_mm" in face:
        row.vertex_mm, row.vertex_against = face["to_truth_mm"]["median"], "truth"
        with np.load(truth / "ground_truth.npz", allow_pickle=False) as data:
            row.true_mm_per_unit = float(data["mm_per_unit"])
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
            offsets = [name for name, stage in PipelineConfig().items() if stage.for_offsets]
            bare = [s for name, s in stages.items() if name not in offsets]
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


def flame_jobs(data: Path, folder: Path) -> list[Job]:
    """Runs with models of FLAME's format on heads of known truth, each without and with masks."""
    jobs = []
    for model, avatar in FLAME_HEADS:
        path = data / avatar
        if not (data / model).is_file() or not path.is_file():
            continue
        truth = write_truth(path, folder / path.stem / "truth")
        for masks in (None, data / FLAME_MASKS):
            if masks is not None and not masks.is_file():
                continue
            kind = "no masks" if masks is None else "masks"
            options = {"head": str(data / model), "flame_masks": masks}
            name = f"{path.name}, {kind}"
            jobs.append(Job(path, folder / path.stem / kind.replace(" ", "_"), name, truth, options))
    return jobs


def write_truth(avatar: Path, folder: Path) -> Path:
    """Writes ground_truth.npz, as `evaluate --ground-truth` reads it, for one of the FLAME_HEADS; returns its folder.

    The truth of `head.glb` is `head_gt.npz` beside it: vertices_avatar (V, 3), and scale, units in a metre. An avatar
    without such a file is its own truth, in metres: its vertices are the model's, in the model's order.
    """
    beside = avatar.with_name(f"{avatar.stem}_gt.npz")
    if beside.is_file():
        with np.load(beside, allow_pickle=False) as data:
            vertices, mm_per_unit = data["vertices_avatar"].astype(np.float64), 1000 / float(data["scale"])
    else:
        import trimesh

        mesh = trimesh.load(avatar, process=False, force="mesh")
        vertices, mm_per_unit = np.asarray(mesh.vertices, dtype=np.float64), 1000.0
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "ground_truth.npz") as temporary:
        np.savez_compressed(temporary, vertices=vertices, mm_per_unit=np.array(mm_per_unit))
    return folder


def truth_table(rows: list[Row]) -> str:
    """Markdown of the rows with a truth: medians, surface (vertex to vertex)."""
    names = ("face", "nose", "lips", "eyes", "ears", "neck", "scalp")
    head = ["avatar", "head model", "face surface", "face vertex", *(f"{n}, surface (vertex)" for n in names[1:])]
    head += ["size", "seconds"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for row in rows:
        if row.refused and row.wants_truth:
            cells = [row.name, "", "refused: " + row.refused[:90], *["" for _ in head[4:]], f"{row.seconds:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
        if row.vertex_against != "truth":
            continue
        median = {
            name: [row.metrics["regions"][name][key]["median"] for key in ("to_truth_surface_mm", "to_truth_mm")]
            for name in names
            if "to_truth_mm" in row.metrics["regions"].get(name, {})
        }
        cells = [row.name, row.head, f"{median['face'][0]:.3f} mm", f"{median['face'][1]:.2f} mm"]
        cells += ["{:.2f} ({:.2f})".format(*median[name]) if name in median else "" for name in names[1:]]
        cells += [f"{100 * (row.size_by_face / row.true_mm_per_unit - 1):+.1f} %", f"{row.seconds:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


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


def jobs_of(arguments: argparse.Namespace) -> list[Job]:
    """What the command line asks for."""
    output = arguments.output
    jobs = []
    if arguments.places:
        found = collect(arguments.places)
    else:
        data = Path(os.environ.get("FLAME_FITTING_TEST_DATA", ROOT.parent / "shared"))
        jobs += flame_jobs(data, output / "flame")
        if arguments.only_flame:
            return jobs
        demos = demo_avatars(output, arguments.seeds)
        names = [truth.parent.name for _, truth in demos]
        jobs = [
            Job(path, truth.parent / "run", f"{name} (known truth)", truth)
            for name, (path, truth) in zip(names, demos, strict=True)
        ] + jobs
        found = [data / "avatars" / name for name in TEST_AVATARS if (data / "avatars" / name).is_file()]
        if not found:
            print(f"no test data at {data}: demo avatars only", file=sys.stderr)
    return jobs + [Job(path, output / f"{number:02d}_{path.stem}", path.name) for number, path in enumerate(found)]


def main() -> int:
    """Fits everything asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", type=Path, help="avatar files or folders of them")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "bench_accuracy")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="demo avatars")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    parser.add_argument("--only", default="", help="only avatars whose path contains this")
    parser.add_argument("--only-flame", action="store_true", help="only FLAME-format heads of known truth")
    parser.add_argument("--no-photometric", action="store_true")
    cases.add_arguments(parser)
    expressions.add_arguments(parser)
    arguments = parser.parse_args()
    if expressions.wanted(arguments):
        return expressions.main(arguments)
    if cases.wanted(arguments):
        return cases.main(arguments)
    options = {"photometric": not arguments.no_photometric}
    rows: list[Row] = []
    fits: dict[str, tuple[Path, FitResult]] = {}
    for job in jobs_of(arguments):
        if arguments.only not in str(job.avatar):
            continue
        row = run_avatar(job.avatar, job.folder, job.truth, **options, **job.options)
        row.name = job.name
        if not row.refused and job.truth is None:
            fits[job.name] = job.avatar, load_fit(job.folder / "fit")
            twin = TWINS.get(job.name)
            if twin in fits:
                row.vertex_mm, _ = vertex_difference_mm(*fits[job.name], *fits[twin])
                row.vertex_against = "to the GLB's fit"
        rows.append(row)
        print((truth_table if job.options else table)([row]).splitlines()[-1], flush=True)
    open_rows = [row for row in rows if row.head == "open" and not (row.refused and row.wants_truth)]
    tables = ([table(open_rows)] if open_rows else []) + [truth_table(rows)]
    text = "\n\n".join([*tables, f"Measured by `python scripts/bench_accuracy.py` on {machine()}."])
    print("\n" + text)
    if arguments.readme:
        write_readme(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
