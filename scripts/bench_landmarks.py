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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from flame_fitting.avatar.evidence_calibration import own_evidence
from flame_fitting.avatar.evidence_pictures import EvidencePictures, paints_of, sample
from flame_fitting.avatar.head_calibration import (
    head_frame,
    landmark_embedding,
    painted_avatar,
    render_views,
    turned_light,
)
from flame_fitting.avatar.mesh_avatar import avatar_from_arrays
from flame_fitting.avatar.view_planning import head_cameras, landmark_angles
from flame_fitting.capture.camera import intrinsics_from_fov, project
from flame_fitting.files import atomic_write
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.detector_spread import Cameras, Detected, spread_of
from flame_fitting.landmarks.evidence import Evidence, EvidenceCalibration, read_evidence, shipped_evidence
from flame_fitting.landmarks.evidence_features import EvidenceGeometry
from flame_fitting.landmarks.evidence_fit import OPEN_MM, Samples
from flame_fitting.landmarks.licensed_embeddings import load_licensed_embedding
from flame_fitting.landmarks.lifting import Landmarks3D, lift_landmarks, put_on_surface
from flame_fitting.landmarks.merging import merge
from flame_fitting.landmarks.registry import make_detector
from flame_fitting.landmarks.schemes import scheme_named

STANDIN = "standin/flame2023_standin.pkl"
LICENSED = "standin/landmark_embedding_with_eyes.npy"
SIZE, FOV = 512, 25.0
SIDES = (-90, -60, -40, -20, 0, 20, 40, 60, 90)
ANGLES = np.array([(yaw, 0) for yaw in SIDES] + [(yaw, pitch) for pitch in (-15, 15) for yaw in (-40, 0, 40)], float)
KINDS = ("lit", "side", "clay")
"""Base colour under the soft lights of a capture; lit from the side; clay."""
CAPTURE_ANGLES = tuple((yaw, pitch) for yaw, pitch in landmark_angles() if pitch == 0 or abs(yaw) in (0, 40))
"""13 of the landmark views of a capture."""
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
    K, cameras = cameras_of(head)
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
    return turned_light(np.radians(55.0 if seed % 2 else -100.0))


def cameras_of(head: HeadModel) -> tuple[ndarray, ndarray]:
    """K and world-to-camera of all views."""
    K = np.tile(intrinsics_from_fov(FOV, SIZE, SIZE), (len(ANGLES), 1, 1))
    return K, head_cameras(ANGLES, np.eye(4), head_frame(head), FOV)


@dataclass(eq=False)
class Row:
    """One head, kind and detector."""

    head: str
    kind: str
    detector: str
    lifted: ndarray
    """(N,) mm by depth, from views up to 60 degrees, as captures have them."""
    rays: ndarray
    """(N,) mm, triangulated from the same views, merged as without a surface."""
    pixels: ndarray
    """(views, 51) px from the projection of the calibrated places."""
    uncalibrated: ndarray
    """(51,) mm between the lifted inner points and where a licensed embedding has them; NaN where there is none."""
    scheme: str


def measure(
    head: HeadModel, one: BenchHead, kind: str, found: dict[str, ndarray], detectors: Sequence[str], data: Path
) -> list[Row]:
    """All detectors and what they make together, on one head."""
    vertices = torch.as_tensor(true_vertices(head, one.seed))[None]
    K, cameras = cameras_of(head)
    near = np.flatnonzero(np.abs(ANGLES[:, 0]) <= 60)
    depth, normal = found["depth"][near], found["normal"][near].astype(np.float64)
    embeddings = {name: landmark_embedding(head, make_detector(name), CALIBRATION[kind]) for name in detectors}
    points = {name: found[name] for name in detectors}

    def lift(landmarks: ndarray, scheme: str, surface: bool = True) -> Landmarks3D:
        maps = (depth, normal) if surface else (None, None)
        return lift_landmarks(landmarks[near], K[near], cameras[near], scheme, *maps, np.eye(4))

    of_rig, in_space = dict(points), {}
    if len(detectors) > 1:
        given = [Detected(name, points[name][near][None], embeddings[name]) for name in detectors]
        of_all = Cameras(K[near][None], cameras[near][None], np.ones((1, len(near)), dtype=bool), calibrated=True)
        for surface, into in ((False, of_rig), (True, points)):
            lifted = [[lift(points[d.name], d.embedding.scheme, surface)] for d in given]
            on_surface = lifted if surface else [[]] * len(given)
            spreads = [spread_of(d, of_all, own) for d, own in zip(given, on_surface, strict=True)]
            merged = merge(head, given, of_all, spreads, lifted)
            if surface:
                maps = K[near], cameras[near], depth, normal
                in_space["merged"] = put_on_surface(merged.in_space[0], *maps, np.eye(4))
            into["merged"] = np.full((len(ANGLES), *merged.landmarks.shape[2:]), np.nan, dtype=np.float32)
            into["merged"][near] = merged.landmarks[0]
        shares = {name: f"{np.median(share):.2f}" for name, share in merged.shares.items()}
        print(f"  merged, parts: {shares}", flush=True)
        embeddings["merged"] = merged.embedding
    licensed = data / LICENSED
    by_hand = load_licensed_embedding(licensed, head) if one.spec != "open" and licensed.is_file() else None
    rows = []
    for name, landmarks in points.items():
        embedding = embeddings[name]
        inner = scheme_named(embedding.scheme).inner
        truth = embedding.points(vertices, head.faces)[0].numpy()
        found_3d = in_space[name] if name in in_space else lift(landmarks, embedding.scheme)
        rays = lift(of_rig[name], embedding.scheme, surface=False)
        seen = landmarks[:, inner, :2] - project(truth[inner], K, cameras)[..., :2]
        plain = np.full(51, np.nan)
        if by_hand is not None:
            places = by_hand.points(vertices, head.faces)[0].numpy()[scheme_named(by_hand.scheme).inner]
            plain = 1000 * np.linalg.norm(found_3d.points[inner] - places, axis=1)
        rows.append(
            Row(
                one.name,
                kind,
                name,
                1000 * np.linalg.norm(found_3d.points - truth, axis=1),
                1000 * np.linalg.norm(rays.points - truth, axis=1),
                np.linalg.norm(seen, axis=-1),
                plain,
                embedding.scheme,
            )
        )
    return rows


GROUPS = ("brows", "nose", "eyes", "outer_lips", "inner_lips")


def point_tables(rows: Sequence[Row], detectors: Sequence[str]) -> str:
    """Markdown: mm by group of points, and px by the view's yaw."""
    ibug = scheme_named("ibug68").groups
    out = ["| heads | detector | n | all points | inner 51 | " + " | ".join(GROUPS) + " | rays, inner 51 |"]
    out.append("|---" * (6 + len(GROUPS)) + "|")
    models = sorted({row.head.split("_")[0] for row in rows})
    selections = [("all", rows)]
    selections += [(model, [row for row in rows if row.head.startswith(model)]) for model in models]
    selections += [(kind, [row for row in rows if row.kind == kind]) for kind in KINDS]
    for title, chosen in selections:
        for name in detectors:
            own = [row for row in chosen if row.detector == name]
            if not own:
                continue
            of_ibug = np.array([row.lifted[scheme_named(row.scheme).ibug68] for row in own])
            values = [np.nanmedian(np.concatenate([row.lifted for row in own])), np.nanmedian(of_ibug[:, 17:])]
            values += [np.nanmedian(of_ibug[:, ibug[group]]) for group in GROUPS]
            values.append(np.nanmedian([row.rays[scheme_named(row.scheme).inner] for row in own]))
            out.append(f"| {title} | {name} | {len(own)} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    out += ["", "| detector | " + " | ".join(f"{abs(yaw)}°" for yaw in SIDES if yaw >= 0) + " | (px of 512, inner 51)"]
    out.append("|---" * (2 + sum(yaw >= 0 for yaw in SIDES)) + "|")
    for name in detectors:
        stack = np.array([row.pixels for row in rows if row.detector == name])
        if len(stack):
            cells = [stack[:, np.abs(ANGLES[:, 0]) == yaw] for yaw in SIDES if yaw >= 0]
            text = [f"{np.nanmedian(cell):.1f}" if np.isfinite(cell).any() else "no face" for cell in cells]
            out.append(f"| {name} | " + " | ".join(text) + " | |")
    by_hand = [row for row in rows if np.isfinite(row.uncalibrated).any() and row.detector != "merged"]
    if by_hand:
        out += ["", "| stand-in, inner 51 | calibrated mm | licensed-style embedding mm |", "|---|---|---|"]
        for name in detectors:
            own = [row for row in by_hand if row.detector == name]
            if own:
                calibrated = np.nanmedian([row.lifted[scheme_named(row.scheme).inner] for row in own])
                out.append(f"| {name} | {calibrated:.2f} | {np.nanmedian([row.uncalibrated for row in own]):.2f} |")
    return "\n".join(out)


def evidence_table(data: Path, work: Path, count: int, shipped: EvidenceCalibration) -> str:
    """Markdown: errors of evidence on identities, paints and expressions that no calibration saw."""
    out = ["| heads | calibration | pictures | of a moment | lid gap mm | of a moment | lip gap mm | gaze yaw ° |"]
    out[0] += " gaze pitch ° | gaze angle ° | of a moment |"
    out.append("|---" * 11 + "|")
    drawn = EvidencePictures(identities=count, expressions=4, paints=8, plain_paints=0, seed=99)
    # 13 pictures of each
    around = replace(drawn, identities=min(count, 10), expressions=1, seed=98, angles=CAPTURE_ANGLES)
    detector = make_detector("mediapipe")
    for model, spec in (("open", "open"), ("standin", str(data / STANDIN))):
        if spec != "open" and not Path(spec).is_file():
            continue
        head = load_head(spec)
        embedding = landmark_embedding(head, detector, "lit")
        calibrations = {"shipped": shipped}
        if spec != "open":
            calibrations["corrected"] = own_evidence(head, detector, embedding, shipped, notify=print)
        for name, config in (("", drawn), ("_13", around)):
            path = work / f"evidence_{model}{name}.npz"
            if not path.is_file():
                np.savez_compressed(path, **sample(head, detector, embedding, config).__dict__)
            samples = Samples(**np.load(path))
            for title, calibration in calibrations.items():
                out.append(f"| {model} | {title} | {_evidence_row(samples, calibration, head, embedding)}")
    return "\n".join(out)


def _evidence_row(
    samples: Samples, calibration: EvidenceCalibration, head: HeadModel, embedding: LandmarkEmbedding
) -> str:
    geometry = EvidenceGeometry(head, embedding)
    read = read_evidence(calibration, geometry, samples.landmarks, samples.scores, samples.K)
    moments = [np.flatnonzero(samples.group[:, 1] == moment) for moment in np.unique(samples.group[:, 1])]
    together = [
        Evidence(read.values[m], read.own_std[m], read.shared_std, read.odds[m]).combined().values for m in moments
    ]
    one = _errors(read.values, samples.truth)
    several = _errors(np.array(together), samples.truth[[m[0] for m in moments]])
    cells = " | ".join(f"{value:.2f}" for value in (one[0], several[0], *one[1:], several[4]))
    return f"{len(samples.truth)} | {max(len(m) for m in moments)} | {cells} |"


def _errors(values: ndarray, truth: ndarray) -> tuple[float, ...]:
    """Medians: lid gaps, lip gaps, gaze yaw, pitch and angle where irises are seen."""
    error = np.abs(values - truth)
    open_eyes = truth[:, [2, 7]] >= OPEN_MM
    yaw, pitch = (np.where(open_eyes, error[:, [13 + k, 15 + k]], np.nan) for k in (0, 1))
    angle = np.hypot(yaw * np.cos(np.radians(truth[:, [14, 16]])), pitch)
    return tuple(float(np.nanmedian(x)) for x in (error[:, :10], error[:, 10:13], yaw, pitch, angle))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what was drawn and detected")
    parser.add_argument("--detectors", nargs="+", default=["mediapipe", "dlib"])
    parser.add_argument("--heads", type=int, default=5, help="of each model under soft light")
    parser.add_argument("--others", type=int, default=2, help="of each model lit from the side, and in clay")
    parser.add_argument("--evidence", type=int, default=10, help="identities of each model for lids, lips and gaze")
    parser.add_argument("--data", type=Path, default=None, help="test data, with the stand-in")
    arguments = parser.parse_args()
    data = arguments.data or Path(os.environ.get("FLAME_FITTING_TEST_DATA", Path(__file__).parents[2] / "shared"))
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(f"{len(ANGLES)} views of {SIZE} px a head, yaw up to 90°, {arguments.heads} heads of each model", flush=True)
    rows, seconds = [], {name: [] for name in arguments.detectors}
    by_model: dict[str, list[BenchHead]] = {}
    for one in heads_of(arguments.heads, data):
        by_model.setdefault(one.spec, []).append(one)
    for spec, heads in by_model.items():
        head = load_head(spec)
        plain = head.texture is None
        clay = landmark_embedding(head, make_detector("mediapipe"), "clay") if plain else None
        paints = paints_of(head, clay, EvidencePictures(paints=len(heads), plain_paints=0, seed=77))
        for kind in KINDS:
            for one, paint in list(zip(heads, paints, strict=True))[: None if kind == "lit" else arguments.others]:
                path = arguments.work / f"{one.name}_{kind}.npz"
                look(head, one, kind, paint, arguments.detectors, path)
                found = dict(np.load(path))
                rows += measure(head, one, kind, found, arguments.detectors, data)
                for name in arguments.detectors:
                    seconds[name].append(float(found[f"{name}_seconds"]))
                print(f"{one.name} {kind}", flush=True)
    names = [*arguments.detectors, *(["merged"] if len(arguments.detectors) > 1 else [])]
    if rows:
        print("\nmm, median, lifted by depth from views up to 60°\n")
        print(point_tables(rows, names))
        print("\n" + ", ".join(f"{name} {np.median(values):.2f} s a picture" for name, values in seconds.items()))
    calibration = shipped_evidence("mediapipe", make_detector("mediapipe").version)
    if calibration is not None and arguments.evidence:
        print("\n" + evidence_table(data, arguments.work, arguments.evidence, calibration))


if __name__ == "__main__":
    main()
