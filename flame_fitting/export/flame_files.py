"""FLAME parameters and meshes of a dataset, a file for every timestep."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flame_fitting.export.obj import write_obj
from flame_fitting.export.transforms_files import EYELIDS_NAME
from flame_fitting.fit.parameters import OPTIONAL_KEYS, POSES
from flame_fitting.fit.result import FitResult
from flame_fitting.head.flame_files import FLAME_COUNTS, FLAME_WITH_TEETH
from flame_fitting.head.model import HeadModel

CANONICAL_JAW = 0.3
"""rad: the mouth slightly open, as VHAP's canonical head."""

# what GaussianAvatars binds its Gaussians to
_FLAME_TOPOLOGIES = {FLAME_COUNTS, FLAME_WITH_TEETH}
_FLAME_SHAPE, _FLAME_EXPR = 300, 100


def is_flame(head: HeadModel) -> bool:
    """Whether the head has FLAME's vertices and faces, which GaussianAvatars needs."""
    return (head.n_vertices, head.faces.shape[0]) in _FLAME_TOPOLOGIES


def has_vertices(head: HeadModel, count: int) -> bool:
    """Whether offsets of so many vertices can be of this head: FLAME's come with teeth and without."""
    return count == head.n_vertices or (is_flame(head) and count in {vertices for vertices, _ in _FLAME_TOPOLOGIES})


def flame_parameters(fit: FitResult, head: HeadModel, row: int) -> dict[str, NDArray[np.float32]]:
    """One timestep's parameters with VHAP's keys and shapes, leading dimension 1 except `shape`.

    `dynamic_offset` and `eyelids` (left, right; VHAP has none) are among them where the fit has them.
    """
    p = fit.parameters
    out = {key: p[key][row : row + 1] for key in POSES}
    out["shape"], out["expr"] = p["shape"], p["expr"][row : row + 1]
    out["static_offset"] = p["static_offset"][row : row + 1] if len(p["static_offset"]) > 1 else p["static_offset"]
    out |= {key: p[key][row : row + 1] for key in OPTIONAL_KEYS if key in p}
    if is_flame(head):  # its readers expect the full bases
        out["shape"] = _padded(out["shape"], _FLAME_SHAPE)
        out["expr"] = _padded(out["expr"], _FLAME_EXPR)
    return {key: np.asarray(value, dtype=np.float32) for key, value in out.items()}


def canonical_parameters(fit: FitResult, head: HeadModel) -> dict[str, NDArray[np.float32]]:
    """The neutral head with the fitted shape and offsets and the jaw slightly open."""
    fitted = flame_parameters(fit, head, 0)
    out = {key: np.zeros_like(value) for key, value in fitted.items()}
    out |= {"shape": fitted["shape"], "static_offset": fitted["static_offset"]}
    out["jaw_pose"] = np.array([[CANONICAL_JAW, 0, 0]], dtype=np.float32)
    return out


def write_parameters(folder: Path, fit: FitResult, head: HeadModel, rows: dict[int, int]) -> None:
    """flame_param/<index:05d>.npz for every timestep index and its row of the fit, canonical_flame_param.npz, and the
    blendshapes (V, 3) of the eyelids where the fit has these."""
    (folder / "flame_param").mkdir()
    for index, row in rows.items():
        np.savez(folder / "flame_param" / f"{index:05d}.npz", **flame_parameters(fit, head, row))  # type: ignore[arg-type]
    np.savez(folder / "canonical_flame_param.npz", **canonical_parameters(fit, head))  # type: ignore[arg-type]
    if "eyelids" in fit.parameters:  # without them their coefficients mean nothing
        left, right = np.moveaxis(head.eyelids.float().cpu().numpy(), 2, 0)
        np.savez(folder / EYELIDS_NAME, left=left, right=right)


def write_meshes(folder: Path, fit: FitResult, head: HeadModel, rows: dict[int, int]) -> None:
    """meshes/<index:05d>.obj, flame/exp/<index:05d>.txt for every timestep index and its row, and canonical.obj."""
    faces = head.faces.cpu().numpy()
    (folder / "flame" / "exp").mkdir(parents=True)
    (folder / "meshes").mkdir()
    for index, row in rows.items():
        write_obj(folder / "meshes" / f"{index:05d}.obj", fit.of_rows([row]).vertices_head(head)[0], faces)
        np.savetxt(folder / "flame" / "exp" / f"{index:05d}.txt", fit.parameters["expr"][row], fmt="%.9g")
    with torch.no_grad():
        rest = {
            "shape": fit.parameters["shape"],
            "static_offset": fit.parameters["static_offset"][:1],
            "jaw_pose": np.array([[CANONICAL_JAW, 0, 0]]),
        }
        posed = head(**{key: torch.as_tensor(value).to(head.v_template) for key, value in rest.items()})
    write_obj(folder / "canonical.obj", posed.vertices[0].double().cpu().numpy(), faces)


def _padded(values: NDArray[Any], size: int) -> NDArray[Any]:
    missing = max(0, size - values.shape[-1])
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
