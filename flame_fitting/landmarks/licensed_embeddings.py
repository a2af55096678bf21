"""Landmark embeddings that come with FLAME's licence, as users download them.

| file | content |
|---|---|
| landmark_embedding.npy | full_lmk_* (68) and static_lmk_* (51), in iBUG-68's order |
| landmark_embedding_with_eyes.npy | the same with the pupils as points 68 and 69 |
| flame_static_embedding.pkl | lmk_face_idx, lmk_b_coords: the 51 inner points of iBUG-68 |
| mediapipe_landmark_embedding.npz | lmk_face_idx, lmk_b_coords, landmark_indices: 105 of MediaPipe's 478 |

All are triangles of FLAME and barycentric weights. The dynamic contours of the .npy files are not read: they depend on
the view, and the fit leaves jaw lines out. Pickled ones are read without running anything (head/pickles.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.files import read_npz, sha256_of_file
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.flame_files import FLAME_COUNTS, FLAME_WITH_TEETH
from flame_fitting.head.model import HeadModel
from flame_fitting.head.pickles import read_pickle
from flame_fitting.head.torch_files import read_object_npy
from flame_fitting.landmarks.schemes import EYE_CORNERS, SCHEMES

SPREAD_MM = 2.0
"""How far a hand-placed point lies from where a detector means it: an assumption, for the files do not say."""
_EYE_DISTANCE = (0.06, 0.13)
"""Between the outer eye corners of a head, m."""


def load_licensed_embedding(path: Path, head: HeadModel) -> LandmarkEmbedding:
    """The embedding of a file, for a FLAME head; its scheme is ibug68, ibug70 (with pupils) or mediapipe478."""
    path = Path(path)
    counts = (head.n_vertices, head.faces.shape[0])
    # teeth stand behind FLAME's own vertices and triangles, which keep their numbers
    if counts not in (FLAME_COUNTS, FLAME_WITH_TEETH):
        vertices, triangles = FLAME_COUNTS
        raise InputError(
            f"--landmark-embedding {path}: belongs to FLAME's {vertices} vertices and {triangles} triangles; the head "
            f"model {head.name} has {counts[0]} and {counts[1]}. Leave the flag out, or give a FLAME file: --head."
        )
    scheme, index, faces, weights = _read(path)
    count = SCHEMES[scheme].n_points
    faces, weights = _checked(path, faces, weights)
    if index.shape != faces.shape or (index.size and (index.min() < 0 or index.max() >= count)):
        raise InputError(f"{path}: names landmarks that {scheme} does not have.")
    face_index, barycentric = np.full(count, -1), np.zeros((count, 3))
    face_index[index], barycentric[index] = faces, weights
    embedding = LandmarkEmbedding(
        face_index=face_index,
        barycentric=barycentric,
        spread_mm=np.full(count, SPREAD_MM),
        n_views=np.zeros(count, dtype=np.int64),
        scheme=scheme,
        detector=f"{path.name} {sha256_of_file(path)[:16]}",
        shading="any",
        head_hash=head.file_hash,
    )
    _check_places(path, embedding, head)
    return embedding


def _read(path: Path) -> tuple[str, ndarray, Any, Any]:
    """Scheme, and index, triangle and weights of the points that the file has."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check the path of --landmark-embedding.")
    if path.suffix == ".npz":
        content: Any = _read_npz(path)
        if "landmark_indices" not in content:
            raise InputError(f"{path}: lacks landmark_indices: not mediapipe_landmark_embedding.npz.")
        index = np.asarray(content["landmark_indices"]).reshape(-1)
        if index.dtype.kind not in "iu":
            raise InputError(f"{path}: landmark_indices are no whole numbers.")
        return "mediapipe478", index, content.get("lmk_face_idx"), content.get("lmk_b_coords")
    if path.suffix not in (".npy", ".pkl"):
        raise InputError(f"{path}: not a landmark embedding: .npy, .npz and .pkl files are read.")
    content = read_object_npy(path) if path.suffix == ".npy" else read_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a landmark embedding: it holds no named arrays.")
    for prefix in ("full_lmk_faces_idx", "static_lmk_faces_idx", "lmk_face_idx"):
        if prefix not in content:
            continue
        faces = np.asarray(content[prefix]).reshape(-1)
        weights = content.get(prefix.replace("faces_idx", "bary_coords").replace("face_idx", "b_coords"))
        # 51 and 53 leave the 17 points of the jaw line out
        index = np.arange(len(faces)) + (17 if len(faces) in (51, 53) else 0)
        if len(faces) in (51, 68):
            return "ibug68", index, faces, weights
        if len(faces) in (53, 70):
            return "ibug70", index, faces, weights
        raise InputError(f"{path}: has {len(faces)} points; 51, 53, 68 or 70 are known.")
    raise InputError(f"{path}: not a landmark embedding: it has neither full_lmk_faces_idx nor static_lmk_faces_idx.")


def _read_npz(path: Path) -> dict[str, ndarray]:
    wanted = ("lmk_face_idx", "lmk_b_coords", "landmark_indices")
    return read_npz(path, "Download it again.", (), wanted)


def _checked(path: Path, faces: Any, weights: Any) -> tuple[ndarray, ndarray]:
    faces, weights = np.asarray(faces).reshape(-1), np.asarray(weights)
    if faces.dtype.kind not in "iu" or weights.dtype.kind != "f" or weights.size != 3 * len(faces) or not len(faces):
        raise InputError(f"{path}: its triangles and barycentric weights do not fit together.")
    weights = weights.reshape(-1, 3).astype(np.float64)
    if faces.min() < 0 or faces.max() >= FLAME_COUNTS[1]:
        raise InputError(f"{path}: names triangle {faces.max()}; FLAME has {FLAME_COUNTS[1]}.")
    if not np.isfinite(weights).all() or np.abs(weights.sum(1) - 1).max() > 1e-3:
        raise InputError(f"{path}: its barycentric weights do not add up to 1.")
    return faces.astype(np.int64), weights


def _check_places(path: Path, embedding: LandmarkEmbedding, head: HeadModel) -> None:
    """Refuses points that are not where a face has them: another order of triangles, or another mesh."""
    corners = SCHEMES[embedding.scheme].ibug68[list(EYE_CORNERS)]
    right, left = embedding.points(head.v_template[None], head.faces)[0, corners].double().cpu().numpy()
    if not (np.isfinite(right).all() and np.isfinite(left).all()):
        return
    distance = float(np.linalg.norm(left - right))
    if not (_EYE_DISTANCE[0] < distance < _EYE_DISTANCE[1]) or not right[0] < 0 < left[0]:
        raise InputError(
            f"--landmark-embedding {path}: puts the outer eye corners {1000 * distance:.0f} mm apart on the head model "
            f"{head.name}, on the wrong places: it belongs to another mesh."
        )
