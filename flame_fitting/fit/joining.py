"""Captures of one person as one capture: which similarity moves each into the world of the first, and its folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting import progress
from flame_fitting.capture.avatar_record import AvatarRecord, PartRecord
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.joining import Part, joined_views, part_names, write_joined
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.capture.similarity import decompose_similarity, robust_umeyama
from flame_fitting.errors import InputError, NoFaceError
from flame_fitting.fit.landmark_sources import detections_of, lift_detections
from flame_fitting.fit.scale import METRES_PER_UNIT
from flame_fitting.folders import staged_folder
from flame_fitting.landmarks.files import read_landmarks, without_heldout
from flame_fitting.landmarks.joining import join_landmarks, shared_detectors
from flame_fitting.landmarks.schemes import inner_weights, scheme_named
from flame_fitting.manifest import Manifest, compare, input_record, read_manifest

JOINED = "capture"
"""Folder of the joined capture, in the fit's."""
NEAR_FACTOR = 0.06
"""A ratio of two captures' units this near to one of common units is taken for it: expressions move landmarks."""
_STILL_DEGREES, _STILL_SHARE = 3.0, 0.03
"""Captures turned by less against each other, and shifted by less of the face's size, share their world already."""
FACTORS = tuple(sorted({1.0, *(a / b for a, b in permutations(METRES_PER_UNIT.values(), 2))}))
"""Ratios of common units."""


@dataclass(frozen=True, eq=False)
class Move:
    """How a capture comes into the world of the first one."""

    matrix: Float[ndarray, "4 4"]
    """Similarity from its own world."""
    ratio: float
    """Of the units, as the landmarks have it."""
    exact: bool
    """Whether the matrix has a ratio of common units for that."""


def move_between(own: Float[ndarray, "N 3"], first: Float[ndarray, "N 3"], weights: Float[ndarray, " N"]) -> Move:
    """By the points of two captures' faces that mean the same; NaN where one lacks a point.

    Raises ValueError where fewer than three are in both.
    """
    found = robust_umeyama(own, first, weights)
    ratio = decompose_similarity(found.matrix)[0]
    near = min(FACTORS, key=lambda factor: abs(np.log(ratio / factor)))
    exact = abs(ratio / near - 1) <= NEAR_FACTOR
    if not exact:
        return Move(found.matrix, ratio, exact)
    # the scale is certain, an expression is what changes it
    turned = robust_umeyama(near * own, first, weights, with_scale=False).matrix
    matrix = turned @ np.diag([near] * 3 + [1.0])
    if near == 1.0:
        known = np.isfinite(own + first).all(1) & (weights > 0)
        middle = own[known].mean(0)
        size = float(np.sqrt(((own[known] - middle) ** 2).sum(1).mean()))
        shift = float(np.linalg.norm(turned[:3, :3] @ middle + turned[:3, 3] - middle))
        turn = np.degrees(np.arccos(np.clip((np.trace(turned[:3, :3]) - 1) / 2, -1, 1)))
        if turn < _STILL_DEGREES and shift < _STILL_SHARE * size:
            matrix = np.eye(4)
    return Move(matrix, ratio, exact)


def join(folders: Sequence[Path], output: Path, use_geometry: bool = True) -> Path:
    """The folder of the joined capture, in the fit's folder `output`; made anew only where an input has changed.

    Every input has landmarks. Raises InputError where they share no detector, NoFaceError where one shows no face.
    """
    planned = plan_of(folders, output)
    target = output / JOINED
    if compare(read_manifest(target), planned) is None:
        return target
    first = open_capture(folders[0])
    same = ReadOptions(background_color=first.background_color)
    captures = [first, *(open_capture(folder, same) for folder in folders[1:])]
    detectors = shared_detectors(captures)
    faces = [_face(capture, detectors[0], use_geometry) for capture in captures]
    weights = inner_weights()
    moves = [Move(np.eye(4), 1.0, True), *(move_between(face, faces[0], weights) for face in faces[1:])]
    for folder, move in zip(folders[1:], moves[1:], strict=True):
        _tell(folder, folders[0], move)
    names = part_names(captures)
    parts = [Part(*of) for of in zip(captures, names, (move.matrix for move in moves), strict=True)]
    views = joined_views(parts)
    record = replace(first.avatar, views=None, morphs=None, parts=tuple(map(_record_of, parts, folders)))
    warnings = dict.fromkeys(text for capture in captures for text in capture.avatar.warnings or ())
    record = replace(record, warnings=tuple(warnings))
    with (
        progress.stage("join", part=True) as line,
        staged_folder(target, stale=("landmarks2d",), stage="join") as staged,
    ):
        joined = write_joined(staged, parts, views, record)
        for name in detectors:
            join_landmarks(joined, captures, views, name)
        for number, move in enumerate(moves[1:], start=2):
            planned.transforms[f"world_from_capture_{number}"] = move.matrix.tolist()
        planned.finished = True
        planned.write(staged)
        line.result(f"{len(joined.timesteps)} timesteps of {len(captures)} captures -> {target}")
    return target


def check_distinct(folders: Sequence[Path]) -> None:
    """Raises InputError where two captures are the same byte for byte, or one was joined of what another one holds."""
    from flame_fitting.capture.hashing import capture_hash

    own: dict[str, Path] = {}
    parts: dict[str, Path] = {}
    for folder in folders:
        content, made = capture_hash(folder, ReadOptions()), read_manifest(folder) if folder.is_dir() else None
        if content in own:
            raise InputError(f"{own[content]} and {folder} are the same, byte for byte. Give each capture once.")
        joined = made.inputs.items() if made is not None and made.stage == "join" else ()
        held = {record.sha256 for role, record in joined if role.startswith("capture ")}
        for one in held | {content}:
            other = parts.get(one) or (own.get(one) if one in held else None)
            if other is not None:
                raise InputError(
                    f"{other} and {folder} hold the same capture: one was joined of several, this one among them. Give "
                    "each capture once."
                )
        own[content] = folder
        parts |= dict.fromkeys(held, folder)


def plan_of(folders: Sequence[Path], output: Path) -> Manifest:
    """What decides the joined capture."""
    from flame_fitting.capture.hashing import capture_hash
    from flame_fitting.manifest import hash_folder

    inputs = {}
    for number, folder in enumerate(folders, start=1):
        target = output / JOINED
        inputs[f"capture {number}"] = input_record(folder, target, capture_hash(folder, ReadOptions()))
        marks = folder / "landmarks2d"
        if marks.is_dir():
            own = hash_folder(marks, ("manifest.json", "overlays", "log.txt"))
            inputs[f"landmarks {number}"] = input_record(marks, target, own)
    return Manifest(stage="join", inputs=inputs)


def _face(capture: Capture, detector: str, use_geometry: bool) -> Float[ndarray, "51 3"]:
    """The inner landmarks in its world, of the first timestep that has them."""
    found = without_heldout(capture, read_landmarks(capture, detector))
    rough = capture.avatar.head_from_world
    for one in detections_of(capture, found):
        lifted = lift_detections(capture, one, found.scheme, rough, use_geometry)
        inner = lifted.points[scheme_named(lifted.scheme).inner]
        if np.isfinite(inner).all(1).sum() >= 6:
            return np.asarray(inner, dtype=np.float64)
    raise NoFaceError(f"{capture.root}: no face could be placed in space, so it cannot be joined to the others.")


def _record_of(part: Part, folder: Path) -> PartRecord:
    avatar: AvatarRecord = part.capture.avatar
    shading = part.capture.landmark_shading
    return PartRecord(part.names, str(folder), avatar.file, avatar.sha256, shading, part.world_from_own)


def _tell(folder: Path, first: Path, move: Move) -> None:
    scale = decompose_similarity(move.matrix)[0]
    if not move.exact:
        progress.warn(
            f"{folder}: its face is {move.ratio:.3g} times as large in units of {first}, which is no ratio of common "
            "units: it is scaled by that. Are they the same person?"
        )
    elif scale != 1.0:
        progress.say(f"{folder}: one unit is {scale:g} of {first} (by the faces {move.ratio:.3g}); scaled by that")
    if bool((move.matrix == np.eye(4)).all()):
        progress.say(f"{folder}: stands as {first} does")
    else:
        progress.say(f"{folder}: moved into the world of {first}")
