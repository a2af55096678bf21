"""What is measured of the fit of an avatar's file: to its own surface, and to the neutral one where it is known."""

from pathlib import Path
from typing import Any

import numpy as np

from flame_fitting.head.apertures import GAP_NAMES

from .expression_measure import (
    aligned_to_surface,
    contact_numbers,
    model,
    neutral_of,
    placed,
    rest_of,
    surface_numbers,
    to_avatar,
)


def measure_file(avatar: Path, fit_folder: Path, truth: Path | None = None) -> dict[str, Any]:
    """Numbers of a fit. Millimetres are the truth's; where there is none, those of the fit."""
    import torch

    from flame_fitting.avatar.loading import load_avatar
    from flame_fitting.capture.camera import transform_points
    from flame_fitting.capture.similarity import decompose_similarity, similarity_matrix
    from flame_fitting.fit.result import load_fit
    from flame_fitting.maths.closest import TriangleTree

    head, apertures = model()
    fit = load_fit(fit_folder)
    mesh = load_avatar(avatar)
    metres, known = fit.mm_per_unit / 1000, None
    if truth is not None:
        with np.load(truth) as data:
            known, faces = data["neutral_vertices"], data["neutral_faces"]
            metres = float(data["mm_per_unit"]) / 1000
    # the fit's axes and origin, true metres
    own_size, turn, shift = decompose_similarity(fit.head_from_world)
    frame = similarity_matrix(metres, turn, shift * metres / own_size)
    fitted = transform_points(frame, fit.vertices_world(head)[0])
    row: dict[str, Any] = to_avatar(head, fitted, TriangleTree(transform_points(frame, mesh.vertices), mesh.faces))
    neutral = neutral_of(head, fit, frame)
    if known is not None:
        surface = transform_points(frame, known)
        held = placed(head, fit, frame, **rest_of(fit, "expr", "jaw_pose", "eyes_pose"))
        aligned = aligned_to_surface(head, held, surface, faces)
        for name, own in (("neutral", aligned), ("kept", held)):
            row |= {f"{name}_{key}": value for key, value in surface_numbers(head, own, surface, faces).items()}
    gaps = 1000 * apertures.gaps(torch.as_tensor(neutral)[None], head.faces)[0].numpy()
    lid = np.array(["lid" in name for name in GAP_NAMES])
    row["neutral_lid_gap_itself_mm"], row["neutral_lip_gap_itself_mm"] = (
        float(gaps[lid].mean()),
        float(gaps[~lid].mean()),
    )
    for name, vertices in (("", fitted), ("neutral_", neutral)):
        row |= contact_numbers(head, vertices, name)
    row["jaw_itself_deg"] = float(np.degrees(np.linalg.norm(fit.parameters["jaw_pose"][0])))
    row["expr_rms"] = float(np.sqrt(np.square(fit.parameters["expr"]).mean()))
    row["warnings"] = list(fit.warnings)
    return row
