"""A fit as COLMAP's sparse model with its pictures, as gsplat, 3D Gaussian Splatting and nerfstudio read it.

    images/<timestep:05d>_<camera:02d>.png   over black (or --background-color), cut at the neck
    alpha_maps/                              their masks, same names: for this program, no other reads them
    sparse/0/cameras.bin, images.bin, points3D.bin
    train_list.txt, val_list.txt, test_list.txt      nerfstudio's splits; of a static avatar

Several timesteps: all of that in a folder for each, <timestep:05d>/, for a model is one moment.

Pictures have no alpha: gsplat drops it, and 3D Gaussian Splatting leaves what it hides untrained or black. Both draw on
black unless told otherwise. The world is that of the format `vhap`: head space, metres, of a static avatar.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flame_fitting.errors import InputError
from flame_fitting.export.bust_views import bust_views
from flame_fitting.export.colmap_model import ModelImage, write_model
from flame_fitting.export.frame_pictures import PictureWork, background, write_pictures
from flame_fitting.export.frames import Frame, in_dataset, plan_frames, scaled_size
from flame_fitting.export.job import ExportJob, ExportSummary
from flame_fitting.export.neck_surface import NeckSurface, above_neck
from flame_fitting.export.nerf_dataset import background_warnings, neck_surface, recentred
from flame_fitting.export.splits import SPLITS
from flame_fitting.export.surface_points import sampled_points, seen_in
from flame_fitting.fit.result import FitResult

BLACK = (0.0, 0.0, 0.0)
POINTS = 20000
"""Sampled on the whole head; what fewer than two views see is left out."""
_ENTRIES = ("images", "alpha_maps", "sparse", *(f"{split}_list.txt" for split in SPLITS))


def check_colmap_target(target: Path) -> None:
    """Refuses a folder in a dataset: GaussianAvatars and nerfstudio would read the model in place of the dataset."""
    for folder in target.absolute().parents:
        if (folder / "transforms_train.json").is_file():
            raise InputError(
                f"{target}: lies in {folder}, a dataset. A model of COLMAP there changes how GaussianAvatars and "
                "nerfstudio read it. Choose a folder outside of it."
            )


def write_colmap(job: ExportJob) -> ExportSummary:
    """Writes the model, or one for every timestep."""
    options, warnings = job.options, list[str]()
    color = background(options.background_color)
    frames = plan_frames(job.capture, options.subset, options.landmark_views)
    for frame in frames:
        scaled_size(frame.view, options.scale_factor)  # refused before anything is written
    surface = None
    if options.mask_below_line and options.create_mask_from_mesh:
        surface = neck_surface(job.fit, job.head, warnings)
    warnings += background_warnings(job.capture, frames, color or BLACK)
    moved, dataset_from_world = recentred(job.fit, options.recenter)
    work = PictureWork(dataset_from_world, color or BLACK, options.scale_factor, masks="alpha_maps", sidecars=False)
    views = bust_views(job.capture, frames, dataset_from_world, moved, job.head, surface)
    frames = views.frames
    warnings += views.said()
    moments = sorted({frame.timestep_index for frame in frames})
    job.bar.expect(len(frames))
    counts: list[int] = []
    with job.folder(_stale(job.target)) as folder:
        job.manifest.transforms["dataset_from_world"] = dataset_from_world.tolist()
        job.manifest.result["left_out"] = [frame.name for frame in views.left_out]
        for moment in moments:
            place = folder if len(moments) == 1 else folder / f"{moment:05d}"
            of_moment = [frame for frame in frames if frame.timestep_index == moment]
            chosen = replace(views, frames=of_moment)
            (place / "sparse" / "0").mkdir(parents=True)
            write_pictures(
                place, job.capture, chosen, work, moved, job.head, surface, lambda done, total: job.bar.advance()
            )
            counts.append(_write_sparse(place, job, moved, of_moment, work, surface))
        if len(moments) == 1 and len(job.capture.timesteps) == 1:
            _write_lists(folder, frames)
    if len(frames) < 2 * len(moments):
        warnings.append(
            f"{job.target}: a model has one picture only, from which no program learns a head. For a video of one "
            "camera write --format vhap."
        )
    where = "" if len(moments) == 1 else f" in {len(moments)} folders, one a timestep"
    return ExportSummary(
        job.target,
        f"{len(frames)} pictures, {sum(counts)} points{where}",
        "The model opens in gsplat and COLMAP. Pictures lie on "
        + (
            "black, as gsplat and 3D Gaussian Splatting draw." if (color or BLACK) == BLACK else "the colour you chose."
        ),
        warnings + job.warnings,
    )


def _stale(target: Path) -> tuple[str, ...]:
    """What an earlier export may have left, folders of timesteps among them."""
    numbered = [p.name for p in target.iterdir() if p.name.isdigit() and p.is_dir()] if target.is_dir() else []
    return (*_ENTRIES, *numbered)


def _write_sparse(
    folder: Path,
    job: ExportJob,
    moved: FitResult,
    frames: Sequence[Frame],
    work: PictureWork,
    surface: NeckSurface | None,
) -> int:
    row = frames[0].row
    vertices = moved.vertices_head(job.head, [row])[0]
    points = sampled_points(job.head, vertices, job.fit.texture, POINTS)
    points = points.chosen(above_neck(points.xyz, surface, moved, row))
    views = [scaled_size(in_dataset(frame.view, work.dataset_from_world), work.scale_factor) for frame in frames]
    seen = seen_in(points, views, job.head, vertices)
    count = np.bincount(np.concatenate([ids for ids, _ in seen]), minlength=len(points.xyz))
    kept = count >= min(2, len(views))
    number = np.cumsum(kept) - 1
    images = [
        ModelImage(frame.name, view, number[ids[kept[ids]]], at[kept[ids]])
        for frame, view, (ids, at) in zip(frames, views, seen, strict=True)
    ]
    write_model(folder / "sparse" / "0", images, points.chosen(kept))
    return int(kept.sum())


def _write_lists(folder: Path, frames: Sequence[Frame]) -> None:
    """nerfstudio's splits; it wants some of each."""
    names = {split: [frame.name for frame in frames if frame.split == split] for split in SPLITS}
    for split in SPLITS:
        chosen = names[split] or names["test"] or names["train"] or names["val"]
        (folder / f"{split}_list.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
