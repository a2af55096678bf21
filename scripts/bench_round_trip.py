"""Fits exported datasets again and compares the heads with the fits that were exported, where they are placed.

python scripts/bench_round_trip.py output/A/fit output/B/fit --output output/round_trip
python scripts/bench_round_trip.py output/A/fit --output output/round_trip --ways pictures --preset fast

Each fit is exported as a dataset, landmarks are detected in its pictures, and it is fitted again: from `pictures`,
masks and cameras alone, or beginning with the `parameters` that the dataset carries. Prints tables for
docs/accuracy.md. What is in the output folder is not made again. *Seen* is what is coloured as skin (`fit.covered`).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.similarity import decompose_similarity, umeyama
from flame_fitting.detect_landmarks import DetectConfig, detect
from flame_fitting.export_as_nerf_dataset import ExportConfig, export
from flame_fitting.fit.covered import covered_vertices
from flame_fitting.fit.presets import preset
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.sources import open_fit_and_head
from flame_fitting.fit.texture import TexelMaps
from flame_fitting.fit_avatar import fit
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.report.statistics import area_of_vertices, weighted_stats

WAYS = ("pictures", "parameters")
ROWS = ("face", "nose", "lips", "eyelids", "chin", "forehead", "left_cheek", "right_cheek", "ears", "neck", "scalp")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fits", type=Path, nargs="+", help="folders of fits")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--steps", type=int, help="of rgb_init_offset, as the preset has them by default")
    parser.add_argument("--preset", default="static")
    parser.add_argument("--scale-factor", type=float, default=1.0, help="size of the pictures that are exported")
    args = parser.parse_args()
    for folder in args.fits:
        name = folder.parent.name
        dataset = args.output / name / "export"
        if not (dataset / "transforms.json").is_file():
            export(ExportConfig(folder, dataset, scale_factor=args.scale_factor))
        detect(DetectConfig(dataset))
        for way in args.ways:
            again = args.output / name / way
            if not (again / "tracked_flame_params.npz").is_file():
                _fit_again(dataset, again, way, args.preset, args.steps)
            first, head = open_fit_and_head(folder)
            second, _ = open_fit_and_head(again)
            print(f"\n**{name}**, {way}:\n\n{table(head, first, second)}", flush=True)
    return 0


def _fit_again(dataset: Path, output: Path, way: str, chosen: str, steps: int | None) -> None:
    config = preset(chosen, dataset)
    config.output = output
    config.log.overlays = False
    stage = config.pipeline.rgb_init_offset
    stage.num_steps = steps or stage.num_steps
    if way == "parameters":  # as `fit` says of such a dataset
        config.model.flame_params_path, config.begin_stage = dataset, "rgb_init_offset"
        config.data.use_landmark, stage.lr_scale = False, 0.3
    fit(config, evaluate=False)


def table(head: HeadModel, first: FitResult, second: FitResult) -> str:
    """Rows of distances by region, mm; the dataset's world is the first fit's head space."""
    old = first.vertices_head(head)[0]
    new = transform_points(np.linalg.inv(second.head_from_world), second.vertices_head(head)[0])
    skin = ~_covered(head, first)
    face = head.regions["face"].cpu().numpy()
    seen = face[skin[face]]
    size, turn, _ = decompose_similarity(umeyama(old[seen], new[seen]))
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    lines = [
        f"size of the seen face {100 * (size - 1):+.2f} %, turned by {angle:.2f}°",
        "",
        "| region | vertex: median | 95 % | surface: median | 95 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    vertex, surface, areas = _distances(head, old, new)
    rows = {"face, seen": seen} | {name: head.regions[name].cpu().numpy() for name in ROWS if name in head.regions}
    for name, ids in rows.items():
        both = [weighted_stats(values[ids], areas[ids]) for values in (vertex, surface)]
        cells = [f"{one[key]:.2f}" for one in both if one is not None for key in ("median", "p95")]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _distances(
    head: HeadModel, old: Float[ndarray, "V 3"], new: Float[ndarray, "V 3"]
) -> tuple[Float[ndarray, " V"], Float[ndarray, " V"], Float[ndarray, " V"]]:
    """From each vertex to itself and to the old surface, mm; areas."""
    faces = head.faces.cpu().numpy()
    surface = 1000 * TriangleTree(old, faces).closest(new).distance
    return 1000 * np.linalg.norm(new - old, axis=1), surface, area_of_vertices(old, faces)


def _covered(head: HeadModel, result: FitResult) -> ndarray:
    """(V,) where the fit's texture is not skin; nowhere where it has none."""
    if result.texture is None:
        return np.zeros(head.n_vertices, dtype=bool)
    texture = torch.as_tensor(result.texture / 255.0, dtype=torch.float32)
    texels = TexelMaps(make_rasterizer(torch.device("cpu")), head)(len(texture))
    return (covered_vertices(head, texture, texels) > 0).numpy()


if __name__ == "__main__":
    raise SystemExit(main())
