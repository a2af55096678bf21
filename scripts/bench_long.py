"""A long rig at full size, whose pictures are more than their cache holds: seconds, and peaks of memory.

    python scripts/bench_long.py --device cuda       300 timesteps x 16 cameras of 550 x 802 px, cache of 4 GB
    python scripts/bench_long.py --timesteps 24 --cameras 4 --width 110 --height 160 --steps 20

The open head with a drawn identity, talking. A few timesteps are drawn (--drawn) and shown back and forth, as files of
their own; landmarks have noise of 1.2 px in each picture. Tracked by `--preset track` with few steps and one epoch,
since memory does not grow with them.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flame_fitting import progress
from flame_fitting.avatar.view_planning import directions
from flame_fitting.capture.camera import look_at, project
from flame_fitting.capture.files import TRANSFORMS_NAME, CaptureWriter
from scripts.tracking.cases import BY_NAME, head_named, open_head
from scripts.tracking.course import FREE_DISTANCE, make_course
from scripts.tracking.making import FOCAL, NOISE_PX, OFFSET_MM, SHAPE_SIGMA
from scripts.tracking.running import memory
from scripts.tracking.tables import machine

if TYPE_CHECKING:
    from scripts.rig.course import Course
    from scripts.rig.subject import Subject

YAW, PITCH = 60.0, 12.0
"""Degrees: cameras stand from side to side, in turn above and below."""
TEXTURE_SIZE = 1024
SOURCE = "noisy"


@dataclass(frozen=True)
class Wanted:
    """What is drawn."""

    timesteps: int
    cameras: int
    width: int
    height: int
    drawn: int
    seed: int

    def place_of(self, timestep: int) -> int:
        """The drawn timestep that is shown at this one: there and back again."""
        there_and_back = [*range(self.drawn), *range(self.drawn - 2, 0, -1)]
        return there_and_back[timestep % len(there_and_back)]

    def subject(self) -> "tuple[Subject, Course]":
        """Who is drawn, and how they move."""
        from flame_fitting.avatar.head_calibration import head_frame
        from scripts.rig.subject import draw_subject

        rng = np.random.default_rng(self.seed)
        model, embedding = open_head(head_named("open"))
        subject = draw_subject(model, embedding, rng, TEXTURE_SIZE, SHAPE_SIGMA, OFFSET_MM)
        middle = np.array(head_frame(subject.head).center)
        return subject, make_course(BY_NAME["rig"], self.drawn, subject.head.n_expr, middle, FREE_DISTANCE, rng)

    def views(self) -> tuple[Float[ndarray, "C 3 3"], Float[ndarray, "C 4 4"]]:
        """Intrinsics, and cameras in the studio."""
        yaw, pitch = np.linspace(-YAW, YAW, self.cameras), PITCH * (-1.0) ** np.arange(self.cameras)
        eye = directions(np.stack([yaw, pitch], axis=1))
        focal = FOCAL * self.width
        K = np.array([[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1.0]])
        return np.tile(K, (self.cameras, 1, 1)), look_at(FREE_DISTANCE * eye, np.zeros(3), [0, 1, 0])


def draw(wanted: Wanted, timestep: int) -> tuple[ndarray, ndarray, ndarray]:
    """Pictures (C, 3, H, W) and alpha (C, H, W) of a timestep as float16, and its landmarks (68, 3) in the studio."""
    subject, course = wanted.subject()
    K, world_to_camera = wanted.views()
    avatar, vertices = subject.avatar(course, timestep)
    size = wanted.width, wanted.height
    drawn = avatar.draw(K, world_to_camera, *size, "unlit", (1.0, 1.0, 1.0), outputs=("image", "alpha"))
    assert drawn.image is not None and drawn.alpha is not None
    return drawn.image.astype(np.float16), drawn.alpha.astype(np.float16), subject.points(vertices)


def make(wanted: Wanted, folder: Path) -> int:
    """Writes the capture and its landmarks; returns how many pictures it has."""
    with ProcessPoolExecutor(
        min(wanted.drawn, os.cpu_count() or 1), mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        shown = list(pool.map(draw, repeat(wanted), range(wanted.drawn)))
    K, world_to_camera = wanted.views()
    with progress.silent(), CaptureWriter(folder) as writer:
        for timestep, (image, alpha, _) in enumerate(shown):
            for camera in range(wanted.cameras):
                writer.add(
                    timestep=timestep,
                    camera=camera,
                    role="fit",
                    K=K[camera],
                    world_to_camera=world_to_camera[camera],
                    image=image[camera].astype(np.float32),
                    alpha=alpha[camera].astype(np.float32),
                )
    path = folder / TRANSFORMS_NAME
    transforms = json.loads(path.read_text())
    transforms["frames"] += again(transforms["frames"], wanted, folder)
    if "timestep_indices" in transforms:
        transforms["timestep_indices"] = list(range(wanted.timesteps))
    path.write_text(json.dumps(transforms))
    points = np.stack([shown[wanted.place_of(timestep)][2] for timestep in range(wanted.timesteps)])
    pixels = np.stack([project(points, k, w2c)[..., :2] for k, w2c in zip(K, world_to_camera, strict=True)], axis=1)
    noisy = pixels + NOISE_PX * np.random.default_rng(wanted.seed).standard_normal(pixels.shape)
    landmarks = np.concatenate([noisy, np.ones_like(noisy[..., :1])], axis=-1).astype(np.float32)
    (folder / "landmarks2d").mkdir()
    np.savez_compressed(folder / "landmarks2d" / f"{SOURCE}.npz", landmarks=landmarks, scheme="ibug68")
    return len(transforms["frames"])


def again(frames: list[dict], wanted: Wanted, folder: Path) -> list[dict]:
    """Entries of the timesteps after the drawn ones; their files are hard links with names of their own."""
    out = []
    for timestep in range(wanted.drawn, wanted.timesteps):
        place = wanted.place_of(timestep)
        for frame in frames:
            if frame["timestep_index"] != place:
                continue
            entry = frame | {"timestep_index": timestep}
            for key in ("file_path", "fg_mask_path"):
                if key in frame:
                    old = Path(frame[key])
                    new = old.with_name(old.name.replace(f"{place:05d}", f"{timestep:05d}", 1))
                    os.link(folder / old, folder / new)
                    entry[key] = new.as_posix()
            out.append(entry)
    return out


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=300)
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--width", type=int, default=550, help="px")
    parser.add_argument("--height", type=int, default=802, help="px")
    parser.add_argument("--drawn", type=int, default=12, help="timesteps that are drawn")
    parser.add_argument("--steps", type=int, default=40, help="on keyframes")
    parser.add_argument("--cache", type=float, default=4.0, help="of pictures, GB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, help="empty folder that keeps the capture and the track")
    given = parser.parse_args()
    wanted = Wanted(given.timesteps, given.cameras, given.width, given.height, given.drawn, given.seed)
    with tempfile.TemporaryDirectory() as scratch:
        work, started = given.work or Path(scratch), time.perf_counter()
        count = make(wanted, work / "capture")
        decoded = 4 * count * wanted.width * wanted.height / 1e9
        print(f"{count} pictures, {decoded:.1f} GB decoded, made in {time.perf_counter() - started:.0f} s", flush=True)
        from flame_fitting.fit.track_config import track_preset
        from flame_fitting.fit_avatar import fit

        config = track_preset("track", work / "capture", monocular=False)
        config.output, config.head, config.device = work / "fit", "open", given.device
        config.data.landmark_source, config.data.picture_cache = (SOURCE,), given.cache
        config.log.overlays = config.log.tensorboard = False
        config.pipeline.rgb_init_offset.num_steps = given.steps
        config.pipeline.rgb_global_tracking.num_epochs = 1
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        found = fit(config, evaluate=False)
    print(f"\n{machine()}\n")
    print("| stage | s |\n| --- | --- |")
    print("\n".join(f"| {name} | {seconds:.1f} |" for name, seconds in found.seconds.items()))
    peaks = ", ".join(f"{name} {value:.1f} GiB" for name, value in memory().items())
    print(f"\npeak memory: {peaks} (host before the fit: {before:.1f} GiB); the cache holds up to {given.cache:g} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
