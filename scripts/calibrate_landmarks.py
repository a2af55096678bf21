#!/usr/bin/env python3
"""Makes the landmark embeddings of a head model and prints how well they repeat.

python scripts/calibrate_landmarks.py                        # the open head, into asset/open_head/
python scripts/calibrate_landmarks.py --detector dlib        # the same for dlib
python scripts/calibrate_landmarks.py --head MODEL.npz --output FOLDER
python scripts/calibrate_landmarks.py --heldout 8            # also: error on random heads of known truth
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from flame_fitting import assets
from flame_fitting.avatar.head_calibration import KINDS, calibrate_head, painted_colors, render_head
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.calibration import CalibrationConfig, detect_on_head, spread_table
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.registry import Settings, make_detector
from flame_fitting.landmarks.schemes import scheme_named


def heldout_errors(
    head: HeadModel, detector: LandmarkDetector, embedding: LandmarkEmbedding, count: int, sigma: float = 1.0
) -> np.ndarray:
    """(count, N) mm between detected and embedded points on random heads that took no part in the calibration."""
    colors = None
    if embedding.shading != "clay" and (head.texture is None or not head.has_uv):
        colors = painted_colors(head, embedding)
    render = render_head(head, embedding.shading, colors)
    rng = np.random.default_rng(12345)
    errors = []
    for _ in range(count):
        shape = torch.as_tensor(sigma * np.clip(rng.standard_normal(head.n_shape), -2.5, 2.5), dtype=torch.float32)
        with torch.no_grad():
            vertices = head(shape=shape).vertices
        found = detect_on_head(render, vertices[0].numpy().astype(np.float64), detector)
        errors.append(1000 * np.linalg.norm(found.points - embedding.points(vertices, head.faces)[0].numpy(), axis=1))
    return np.array(errors)


def print_table(title: str, rows: list[tuple[str, int, float, float]]) -> None:
    """One line per group: points, median and 95 % in mm."""
    print(f"\n{title}\n{'group':<14}{'points':>7}{'median':>9}{'95 %':>8}   mm")
    for name, count, median, p95 in rows:
        print(f"{name:<14}{count:>7}{median:>9.2f}{p95:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", default="open", help="open, or the path of a FLAME-format .npz file")
    parser.add_argument("--detector", default="mediapipe")
    parser.add_argument("--model-path", type=Path, default=None, help="the detector's weights")
    parser.add_argument("--output", type=Path, default=None, help="folder; default asset/open_head for the open head")
    parser.add_argument("--identities", type=int, default=CalibrationConfig.identities, help="neutral heads to show")
    parser.add_argument("--drawn", type=int, default=12, help="heads with expressions, other paints and lights")
    parser.add_argument("--heldout", type=int, default=0, help="random heads of known truth to measure the error on")
    arguments = parser.parse_args()
    if arguments.output is None:
        if arguments.head != "open":
            parser.error("--output is needed for another head than the open one")
        arguments.output = assets.asset_dir() / "open_head"

    head = load_head(arguments.head)
    detector = make_detector(arguments.detector, Settings(arguments.model_path))
    config = CalibrationConfig(identities=arguments.identities, drawn=arguments.drawn)
    for kind in KINDS:
        start = time.perf_counter()
        embedding = calibrate_head(head, detector, kind, config)
        path = arguments.output / assets.shipped_embedding_path(detector.name, kind).name
        embedding.save(path)
        missing = int((~embedding.valid).sum())
        print(f"\n{path}: {time.perf_counter() - start:.0f} s, {missing} points without a place", flush=True)
        print_table(f"{kind}: spread over views", spread_table(embedding))
        if arguments.heldout:
            errors = heldout_errors(head, detector, embedding, arguments.heldout)
            groups = {"all": np.arange(errors.shape[1]), "inner 51": scheme_named(detector.scheme).inner}
            groups |= scheme_named(detector.scheme).groups
            rows = [
                (name, len(i), float(np.nanmedian(errors[:, i])), float(np.nanpercentile(errors[:, i], 95)))
                for name, i in groups.items()
            ]
            print_table(f"{kind}: error on {arguments.heldout} held-out heads of known truth", rows)


if __name__ == "__main__":
    main()
