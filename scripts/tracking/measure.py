"""What is measured of a track against the truth of its sequence."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.opening import open_capture
from flame_fitting.errors import InputError
from flame_fitting.fit.alignment import aligned
from flame_fitting.fit.result import FitResult, load_fit
from flame_fitting.fit.sources import open_fit
from flame_fitting.head.apertures import find_apertures
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.landmarks.schemes import scheme_named
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.report.drawing import draw_fit
from flame_fitting.report.pictures import pooled_psnr
from flame_fitting.report.statistics import area_of_vertices, weighted_stats

from . import motion
from .pictures import write_sheet

if TYPE_CHECKING:
    from flame_fitting.head.model import HeadModel

PICTURES = 24
"""Training views that count for the PSNR, evenly spread."""
LID_GAPS, LIP_GAPS = slice(0, 10), slice(10, 13)
"""Of `head.apertures.GAP_NAMES`."""
JAW_WEIGHT = 0.9
"""Skinning weight from which a vertex is the jaw's."""


def measured(
    sequence: Path, fit_folder: Path, head_spec: str, left_out: ndarray, monocular: bool, sheet: Path | None = None
) -> dict[str, Any]:
    """All numbers of a track of the sequence folder; `left_out` (T,) are timesteps that it was not shown.

    `sheet` gets pictures of it.
    """
    found, head, capture = open_fit(fit_folder, head_spec=head_spec)
    truth = load_fit(sequence / "truth")
    head = head.double()
    out = surface_errors(found, truth, head, left_out, monocular)
    out |= angles(found, truth, ~left_out)
    embedding = LandmarkEmbedding.load(sequence / "embedding.npz")
    # the size of a head that one camera sees is not known, nor is then that of its motion
    out |= gains(found, truth, head, embedding, ~left_out, out["size"] if monocular else 1.0)
    if found.focal_length is not None and truth.focal_length is not None:
        deviation = found.uncertainty.get("log_focal")
        out["focal_ratio"] = found.focal_length / truth.focal_length
        out["focal_stated"] = float("nan") if deviation is None else float(np.exp(np.ravel(deviation)[0]) - 1)
    out |= psnr(sequence, found, head, capture, left_out)
    if sheet is not None:
        write_sheet(sheet, found, truth, head, whole_capture(sequence, found, capture), monocular)
    return out


def surface_errors(
    found: FitResult, truth: FitResult, head: "HeadModel", left_out: ndarray, monocular: bool
) -> dict[str, float]:
    """Errors of the face in mm, of one camera after a similarity of each timestep, and how they change over time.

    Every vertex of the face counts the same, but for `*_by_area`. `size` is that of the found face over the true one.
    """
    face, faces = head.region_mask("face").numpy(), head.faces.numpy()
    ours, true = found.vertices_world(head), truth.vertices_world(head)
    fitted = motion.by_similarity(ours[:, face], true[:, face]) if monocular else ours[:, face]
    error = fitted - true[:, face]
    apart = 1000 * np.linalg.norm(error, axis=-1)
    areas = np.stack([area_of_vertices(vertices, faces)[face] for vertices in true])
    shown = ~left_out
    surface = np.stack([1000 * TriangleTree(a, faces).distance(b) for a, b in zip(true, fitted, strict=True)])
    each, out = np.median(apart, axis=1), {"size": motion.size_of(ours[:, face], true[:, face])}
    for name, values in (("surface", surface[shown]), ("vertex", apart[shown])):
        by_area = weighted_stats(values.ravel(), areas[shown].ravel())
        out |= {f"{name}_median": float(np.median(values)), f"{name}_mean": float(values.mean())}
        out |= {f"{name}_p95": float(np.percentile(values, 95)), f"{name}_by_area": by_area["median"] if by_area else 0}
    out["vertex_worst"] = float(each[shown].max())
    others = float(np.median(each[:-1][shown[:-1]])) if shown[:-1].any() else 0.0
    out["last_over_others"] = float(each[-1]) / others if others > 0 else float("nan")
    out["vertex_left_out"] = float(np.median(each[left_out])) if left_out.any() else float("nan")
    out |= {"jitter": 1000 * motion.jitter(error), "jitter_shown": 1000 * motion.jitter(error, shown)}
    return out


def angles(found: FitResult, truth: FitResult, shown: ndarray) -> dict[str, float]:
    """Mean errors of rotations, degrees: of the head in the world (by root and neck), of neck and jaw as joints.

    `*_degrees_moving` are those about the best constant rotation, which an identity may hold as well as a pose.
    """

    def chain(fit: FitResult) -> tuple[ndarray, ndarray, ndarray]:
        frame = fit.head_from_world[:3, :3] / np.cbrt(np.linalg.det(fit.head_from_world[:3, :3]))
        root, neck, jaw = (motion.turns(fit.parameters[name]) for name in ("rotation", "neck_pose", "jaw_pose"))
        return frame.T @ root @ neck, neck, jaw

    pairs = zip(("head", "neck", "jaw"), chain(found), chain(truth), strict=True)
    out = {}
    for name, a, b in pairs:
        out[f"{name}_degrees"] = float(motion.angle_between(a, b)[shown].mean())
        steady = motion.without_constant_turn(a[shown], b[shown])
        out[f"{name}_degrees_moving"] = float(motion.angle_between(steady, b[shown]).mean())
    return out


def gains(
    found: FitResult,
    truth: FitResult,
    head: "HeadModel",
    embedding: LandmarkEmbedding,
    shown: ndarray,
    size: float = 1.0,
) -> dict[str, float]:
    """Gain of jaw, lids, lips and brows in the head's own frame, and how much each truly moves, mm.

    What is found is divided by `size` before.
    """
    ours, true = (motionless(fit, head)[shown] for fit in (found, truth))
    ours = ours / size
    faces = head.faces
    chin = (head.weights[:, 2] > JAW_WEIGHT) & head.region_mask("face") & ~head.region_mask("teeth")
    parts = {"jaw": tuple(vertices[:, chin.numpy()] for vertices in (ours, true))}
    tensors = torch.as_tensor(ours), torch.as_tensor(true)
    try:
        apertures = find_apertures(head)
    except InputError:
        pass
    else:
        gaps = [apertures.gaps(vertices, faces).numpy() for vertices in tensors]
        parts |= {"lids": (gaps[0][:, LID_GAPS], gaps[1][:, LID_GAPS])}
        parts |= {"lips": (gaps[0][:, LIP_GAPS], gaps[1][:, LIP_GAPS])}
    brows = scheme_named(embedding.scheme).groups["brows"]
    points = [embedding.points(vertices, faces)[:, brows].numpy() for vertices in tensors]
    parts["brows"] = (points[0], points[1])
    out = {}
    for name, (a, b) in parts.items():
        out[f"gain_{name}"], size = motion.gain(a, b)
        out[f"moved_{name}"] = 1000 * size
    return out


def motionless(fit: FitResult, head: "HeadModel") -> Float[ndarray, "T V 3"]:
    """The fit's vertices without its head's rotation, translation and neck: what moves in the face."""
    still = {name: np.zeros_like(fit.parameters[name]) for name in ("rotation", "translation", "neck_pose")}
    return replace(fit, parameters=fit.parameters | still).vertices_head(head)


def psnr(sequence: Path, found: FitResult, head: "HeadModel", capture: Capture, left_out: ndarray) -> dict[str, float]:
    """PSNR, dB, of views that were held out and of some that were seen, as `picture_psnr` gives it."""
    if found.texture is None:
        return {}
    seen = [view for view in capture.views_of("fit") if not left_out[capture.timesteps.index(view.timestep)]]
    spread = np.unique(np.linspace(0, len(seen) - 1, PICTURES).round().astype(int))
    pairs = {"training": (capture, [seen[number] for number in spread])}
    if hidden := capture.views_of("heldout"):
        pairs["heldout"] = capture, hidden
    elif left_out.any():
        whole = whole_capture(sequence, found, capture)
        pairs["heldout"] = whole, [v for v in whole.views if left_out[whole.timesteps.index(v.timestep)]]
    out = {}
    for name, (of, views) in pairs.items():
        out[f"psnr_{name}"], out[f"psnr_{name}_head"] = picture_psnr(found, head, of, views)
    return out


def whole_capture(sequence: Path, found: FitResult, capture: Capture) -> Capture:
    """The capture, with the pictures of frames that are left out where it has such."""
    place = sequence / "whole"
    return aligned(found, open_capture(place))[1] if place.is_dir() else capture


def picture_psnr(found: FitResult, head: "HeadModel", capture: Capture, views: list[View]) -> tuple[float, float]:
    """PSNR of whole pictures, which are mostly background, and of the true head's pixels, dB."""
    whole, inside = [], []
    for view, picture in zip(views, draw_fit(found, head, capture, views, geometry=False), strict=True):
        image, alpha = capture.image_and_alpha(view)
        error = ((picture.image[0].astype(np.float64) - image) ** 2).mean(axis=0)
        whole.append((float(error.sum()), error.size))
        inside.append((float(error[alpha > 0.5].sum()), int((alpha > 0.5).sum())))
    values = pooled_psnr(whole), pooled_psnr(inside)
    return (float("nan") if values[0] is None else values[0]), (float("nan") if values[1] is None else values[1])
