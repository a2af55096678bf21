#!/usr/bin/env python3
"""Landmark detectors on renders of heads of known truth: each alone and merged, before and after calibration, lifted
and triangulated; lid gap, lip gap and gaze; seconds per picture. The table of docs/landmarks.md.

python scripts/bench_landmarks.py --work /tmp/bench            # all of it: about 20 minutes on 2 cores
python scripts/bench_landmarks.py --work /tmp/bench --heads 2  # a quick look

What was drawn and detected is kept in --work and not made again.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from flame_fitting.avatar.evidence_pictures import painted_avatar, paints_of
from flame_fitting.avatar.evidence_pictures import EvidencePictures
from flame_fitting.avatar.head_calibration import head_frame, landmark_embedding, render_views
from flame_fitting.avatar.mesh_avatar import avatar_from_arrays
from flame_fitting.avatar.view_planning import head_cameras
from flame_fitting.capture.camera import intrinsics_from_fov
from flame_fitting.files import atomic_write
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.registry import make_detector

STANDIN = "standin/flame2023_standin.pkl"
LICENSED = "standin/landmark_embedding_with_eyes.npy"
SIZE, FOV = 512, 25.0
SIDES = (-90, -60, -40, -20, 0, 20, 40, 60, 90)
ANGLES = np.array([(yaw, 0) for yaw in SIDES] + [(yaw, pitch) for pitch in (-15, 15) for yaw in (-40, 0, 40)], float)
KINDS = ("lit", "side", "clay")
"""Base colour under the soft lights of a capture; lit from the side; clay."""
CALIBRATION = {"lit": "lit", "side": "lit", "clay": "clay"}


@dataclass(frozen=True)
class BenchHead:
    """One head of known truth."""

    name: str
    spec: str
    seed: int


def heads_of(count: int, data: Path) -> list[BenchHead]:
    """`count` heads of the open head, and as many of the stand-in where it is there."""
    specs = [("open", "open")] + ([("standin", str(data / STANDIN))] if (data / STANDIN).is_file() else [])
    return [BenchHead(f"{name}_{seed}", spec, 1000 + seed) for name, spec in specs for seed in range(count)]


def true_vertices(head: HeadModel, seed: int) -> ndarray:
    """(V, 3) m: shape 0.9 to 1.1 sigma, an expression of 0.3 sigma, the jaw a little open, eyes that look about."""
    rng = np.random.default_rng(seed)
    kind = head.v_template.dtype
    shape = rng.uniform(0.9, 1.1) * rng.standard_normal(head.n_shape)
    expr = 0.3 * rng.standard_normal((1, head.n_expr))
    jaw = np.array([[rng.uniform(0.02, 0.09), 0.0, 0.0]])
    gaze = rng.normal(0, (0.06, 0.12))
    eyes = np.array([[*gaze, 0.0, *gaze, 0.0]])
    with torch.no_grad():
        out = head(
            shape=torch.as_tensor(shape, dtype=kind),
            **{n: torch.as_tensor(v, dtype=kind) for n, v in (("expr", expr), ("jaw_pose", jaw), ("eyes_pose", eyes))},
        )
    return out.vertices[0].numpy().astype(np.float64)


def look(head: HeadModel, one: BenchHead, kind: str, paint: ndarray, detectors: Sequence[str], path: Path) -> None:
    """Draws one head from all sides and writes what every detector finds; adds detectors that the file lacks."""
    old = dict(np.load(path)) if path.is_file() else {}
    missing = [name for name in detectors if name not in old]
    if not missing:
        return
    vertices = true_vertices(head, one.seed)
    K = np.tile(intrinsics_from_fov(FOV, SIZE, SIZE), (len(ANGLES), 1, 1))
    cameras = head_cameras(ANGLES, np.eye(4), head_frame(head), FOV)
    clay = avatar_from_arrays(vertices, head.faces.numpy())
    avatar = clay if kind == "clay" else painted_avatar(head, vertices, paint)
    turn = side_light(one.seed) if kind == "side" else np.eye(3)
    views = render_views(avatar, K, cameras, SIZE, "clay" if kind == "clay" else "lit", turn)
    for name in missing:
        detector = make_detector(name)
        detector.detect(views.images[:1])
        begin = time.perf_counter()
        old[name] = detector.detect(views.images)
        old[f"{name}_seconds"] = np.array((time.perf_counter() - begin) / len(views.images))
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary, **old | {"depth": views.depth.astype(np.float32), "normal": views.normal.astype(np.float16)}
        )


def side_light(seed: int) -> ndarray:
    """Rotation about the head's up axis that puts the key light on one side."""
    angle = np.radians(55.0 if seed % 2 else -100.0)
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
