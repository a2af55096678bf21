"""A peer that knows nothing of faces: non-rigid ICP of trimesh, from the same landmarks and similarity as the fits.

Amberg et al., "Optimal Step Nonrigid ICP Algorithms for Surface Registration", CVPR 2007; `nricp_amberg`, its defaults.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.camera import transform_points

NAME = "nricp (trimesh)"


@dataclass
class PeerFit:
    """What the peer found."""

    vertices_world: Float[ndarray, "V 3"]
    seconds: float
    warnings: list[str]


def register(capture_folder: Path, mesh: Path, head_spec: str, model_path: Path | None = None) -> PeerFit:
    """Moves the head model's template onto the avatar's mesh, everything in it included."""
    import trimesh
    from trimesh.registration import nricp_amberg

    from flame_fitting.avatar.head_calibration import landmark_embedding, shading_kind
    from flame_fitting.capture.opening import open_capture
    from flame_fitting.fit.landmark_sources import detections_of, lift_detections
    from flame_fitting.fit.prepare import similarity_from_landmarks
    from flame_fitting.head.loading import load_head
    from flame_fitting.landmarks.files import read_landmarks
    from flame_fitting.landmarks.registry import Settings, make_detector
    from flame_fitting.landmarks.schemes import scheme_named

    capture = open_capture(capture_folder)
    detected = read_landmarks(capture, "mediapipe")
    head = load_head(head_spec, add_teeth=False)
    kind = shading_kind(capture.landmark_shading)
    embedding = landmark_embedding(head, make_detector("mediapipe", Settings(model_path)), kind)
    frame = capture.avatar.head_from_world
    lifted = lift_detections(capture, detections_of(capture, detected)[0], detected.scheme, frame)
    reference = similarity_from_landmarks(head.double(), [(embedding, lifted, 1.0)])
    inner = scheme_named(detected.scheme).inner
    inner = inner[np.isfinite(lifted.points[inner]).all(1) & embedding.valid[inner]]
    with np.load(mesh, allow_pickle=False) as data:
        target = trimesh.Trimesh(transform_points(reference, data["vertices"]), data["faces"], process=False)
    source = trimesh.Trimesh(head.v_template.numpy(), head.faces.numpy(), process=False)
    started = time.perf_counter()
    moved = nricp_amberg(
        source,
        target,
        source_landmarks=(embedding.face_index[inner], embedding.barycentric[inner]),
        target_positions=transform_points(reference, lifted.points[inner]),
    )
    seconds = time.perf_counter() - started
    moved = np.asarray(moved, dtype=np.float64)
    warnings = [] if np.isfinite(moved).all() else ["some vertices are no numbers"]
    return PeerFit(transform_points(np.linalg.inv(reference), moved), seconds, warnings)
