"""How far eyelids and lips of a head model stand apart, and where its eyes look.

Both rims of an opening are points of the skin, found once on the template seen from the front: above and below what is
seen of the eyeball, and on both sides of the line where the lips meet. Where the rims go is then a linear function of
the vertices, so a fit can move them.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from flame_fitting.errors import InputError
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix

LID_COLUMNS = 5
"""Per eye, spread evenly between its corners, from the outer to the inner one."""
LIP_COLUMNS = (-0.008, 0.0, 0.008)
"""Metres from the mouth's middle, from the subject's right to its left."""
GAP_NAMES = (
    *(f"{side}_lid_{column}" for side in ("right", "left") for column in range(LID_COLUMNS)),
    *("right_lip", "middle_lip", "left_lip"),
)
"""What `Apertures.gaps` measures, in its order."""
GAZE_NAMES = ("right_gaze_yaw", "right_gaze_pitch", "left_gaze_yaw", "left_gaze_pitch")
"""What `gaze_angles` gives, in its order."""
_COARSE, _FINE = 0.0004, 0.00005
"""Metres between samples: to find an eye's corners, and a rim."""
_LIPS_BEHIND_CHIN = 0.035
"""Metres that lips lie behind the foremost point that the jaw moves, at most."""
_SHUT = 0.0002
"""Metres that lids stand apart when they count as shut."""
_JUMP = 0.3
"""Of the jaw's skinning weight, from the upper lip to the lower one."""


@dataclass(frozen=True, eq=False)
class Apertures:
    """Points on the upper and lower rim of each opening."""

    face_index: ndarray
    """(2, G) triangles: upper, lower rim."""
    barycentric: Float[ndarray, "2 G 3"]

    def points(self, vertices: Float[Tensor, "T V 3"], faces: Tensor) -> Float[Tensor, "T 2 G 3"]:
        """The rims' points on posed vertices."""
        corners = vertices[:, faces[torch.as_tensor(self.face_index, device=faces.device)]]
        weights = torch.as_tensor(self.barycentric, device=vertices.device).to(vertices)
        return torch.einsum("trgkc,rgk->trgc", corners, weights)

    def gaps(
        self, vertices: Float[Tensor, "T V 3"], faces: Tensor, up: Float[Tensor, "T 3"] | None = None
    ) -> Float[Tensor, "T G"]:
        """How far the upper rims stand above the lower ones, in the vertices' unit, in the order of `GAP_NAMES`.

        Measured along the head's own axis `up` (unit length; +y for a head that is not turned); below 0 where lids or
        lips have passed each other.
        """
        upper, lower = self.points(vertices, faces).unbind(1)
        if up is None:
            return (upper - lower)[..., 1]
        return ((upper - lower) * up[:, None]).sum(-1)


def find_apertures(head: HeadModel) -> Apertures:
    """The rims of a head model's eyes and lips; InputError where it has no eyeballs to see or no lips that part."""
    template = head.v_template.detach().cpu().numpy().astype(np.float64)
    faces = head.faces.cpu().numpy()
    weights = head.weights.cpu().numpy()[faces].mean(1)
    teeth = head.face_mask("teeth").cpu().numpy()
    upper, lower = [], []
    for side, joint in (("right", 4), ("left", 3)):
        ball = weights[:, joint] > 0.5
        if not ball.any():
            raise InputError(f"the head model {head.name} has no {side} eyeball, so that its lids cannot be measured.")
        for top, bottom in lid_rims(template, faces, ball, teeth, outer_first=side == "left"):
            upper.append(top)
            lower.append(bottom)
    for top, bottom in _lip_rims(head.name, template, faces, weights, teeth):
        upper.append(top)
        lower.append(bottom)
    index = np.array([[face for face, _ in row] for row in (upper, lower)])
    return Apertures(index, np.array([[bary for _, bary in row] for row in (upper, lower)]))


@lru_cache(maxsize=1)
def apertures_of(head: HeadModel) -> Apertures | None:
    """`find_apertures`, once for a head; None where it has none."""
    try:
        return find_apertures(head)
    except InputError:
        return None


def closing_expression(
    head: HeadModel, apertures: Apertures, vertices: Float[ndarray, "V 3"], eyes: tuple[int, ...] = (0, 1)
) -> Float[ndarray, " E"]:
    """The expression that shuts lids of an unposed head without expression and leaves its lips as they are.

    Of `eyes`, the subject's right (0) and left (1) one; another one stays open.

    `vertices` are metres in head space. Joints at rest make gaps linear in the coefficients: least squares, gaps over
    `_SHUT` and coefficients (as many as the model has) over 1. A model that closes its lids poorly does so here.
    """
    lids = 2 * LID_COLUMNS
    slopes = apertures.gaps(head.exprdirs.permute(2, 0, 1), head.faces).double().cpu().numpy().T / _SHUT
    open_by = apertures.gaps(torch.as_tensor(vertices)[None], head.faces.cpu())[0].double().numpy() / _SHUT
    shut = (np.arange(len(open_by)) < lids) & np.isin(np.arange(len(open_by)) // LID_COLUMNS, eyes)
    wanted = np.where(shut, -open_by, 0.0)
    return np.asarray(np.linalg.solve(slopes.T @ slopes + np.eye(slopes.shape[1]), slopes.T @ wanted))


def closing_amounts(
    apertures: Apertures,
    faces: Int[Tensor, "F 3"],
    vertices: Float[ndarray, "V 3"],
    targets: Float[ndarray, "2 V 3"],
) -> Float[ndarray, "2"]:
    """The amounts of two displacements, of the left and of the right lids, by which each eye's gaps of an unposed head,
    `vertices`, are 0 by least squares."""
    gaps = [apertures.gaps(torch.as_tensor(each)[None], faces)[0].double().numpy() for each in (vertices, *targets)]
    out = []
    for number, slope in enumerate(gaps[1:]):
        eye = slice((1 - number) * LID_COLUMNS, (2 - number) * LID_COLUMNS)  # gaps have the right one first
        out.append(-(slope[eye] @ gaps[0][eye]) / (slope[eye] @ slope[eye]))
    return np.array(out)


def gaze_angles(eyes_pose: Float[Tensor, "T 6"]) -> Float[Tensor, "T 4"]:
    """Yaw (toward the subject's left) and pitch (up) of both eyes against the head, radians, by `GAZE_NAMES`.

    `eyes_pose` is axis-angle, left before right; at rest eyes look along +z.
    """
    out = []
    for pose in (eyes_pose[:, 3:], eyes_pose[:, :3]):
        direction = rotation_matrix(pose)[..., 2]
        out += [torch.atan2(direction[:, 0], direction[:, 2]), torch.asin(direction[:, 1].clamp(-1, 1))]
    return torch.stack(out, dim=1)


Hit = tuple[int, ndarray]
"""A triangle, and where on it."""


def lid_rims(
    template: Float[ndarray, "V 3"],
    faces: ndarray,
    ball: Bool[ndarray, " F"],
    teeth: Bool[ndarray, " F"],
    outer_first: bool,
    count: int = LID_COLUMNS,
) -> list[tuple[Hit, Hit]]:
    """The upper and the lower rim of what is seen of an eyeball from the front, at `count` columns.

    `ball` and `teeth` are triangles of it, and of what hides no eye. `outer_first` is of the subject's left eye, where
    columns are to go from the outer corner to the inner one; they go from -x to +x otherwise. Raises InputError where
    no eyeball is seen.
    """
    points = template[np.unique(faces[ball])]
    low, high = points.min(0), points.max(0)
    near = _near(template, faces, low - 0.004, high + 0.004) & ~teeth
    xs, ys = np.arange(low[0], high[0], _COARSE), np.arange(low[1], high[1], _COARSE)
    grid = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 2)
    face, _ = _frontmost(template, faces, near, grid)
    seen = ((face >= 0) & ball[face]).reshape(len(xs), len(ys)).sum(1) * _COARSE > 0.001
    if seen.sum() < count:
        raise InputError("no eyeball is seen between the lids of the head model, so that its lids cannot be measured.")
    first, last = xs[seen][[0, -1]]
    columns = first + (last - first) * np.arange(1, count + 1) / (count + 1)
    # the subject's left eye has its outer corner at larger x
    columns = columns[::-1] if outer_first else columns
    out = []
    for x in columns:
        line = np.arange(low[1] - 0.003, high[1] + 0.003, _FINE)
        face, bary = _frontmost(template, faces, near, np.stack([np.full_like(line, x), line], axis=1))
        rows = np.flatnonzero((face >= 0) & ball[face])
        longest = max(np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1), key=len)
        above, below = longest[-1] + 1, longest[0] - 1
        out.append(((int(face[above]), bary[above]), (int(face[below]), bary[below])))
    return out


def _lip_rims(name: str, template: ndarray, faces: ndarray, weights: ndarray, teeth: ndarray) -> list[tuple[Hit, Hit]]:
    skin = ~teeth & (weights[:, 3] < 0.5) & (weights[:, 4] < 0.5)
    jaw = template[np.unique(faces[weights[:, 2] > 0.5])]
    if not len(jaw):
        raise InputError(f"the head model {name} has no jaw, so that its lips cannot be measured.")
    bottom, top = jaw[:, 1].min(), jaw[:, 1].max() + 0.01
    # no deeper than a mouth: between lips that part a ray would meet the back of the head
    front = jaw[:, 2].max() - _LIPS_BEHIND_CHIN
    wide = abs(LIP_COLUMNS[0]) + 0.003
    near = _near(template, faces, np.array([-wide, bottom, front]), np.array([wide, top, front])) & skin
    near &= template[faces].min(1)[:, 2] >= front
    out = []
    for x in LIP_COLUMNS:
        line = np.arange(top, bottom, -_FINE)
        face, bary = _frontmost(template, faces, near, np.stack([np.full_like(line, x), line], axis=1))
        face, bary = face[face >= 0], bary[face >= 0]
        # Lips meet where the jaw's weight jumps, not where it grows smoothly over a cheek.
        jump = np.diff(weights[face, 2])
        at = int(np.argmax(jump)) if len(jump) else 0
        if not len(jump) or jump[at] < _JUMP:
            raise InputError(f"the lips of the head model {name} do not part, so that they cannot be measured.")
        out.append(((int(face[at]), bary[at]), (int(face[at + 1]), bary[at + 1])))
    return out


def _near(template: ndarray, faces: ndarray, low: ndarray, high: ndarray) -> ndarray:
    corners = template[faces]
    over = (corners.max(1)[:, :2] >= low[:2]) & (corners.min(1)[:, :2] <= high[:2])
    # the back of the head lies behind
    return np.asarray(over.all(1) & (corners.max(1)[:, 2] >= low[2]))


def _frontmost(template: ndarray, faces: ndarray, among: ndarray, places: ndarray) -> tuple[ndarray, ndarray]:
    """Triangle (M,) that is seen at each x, y from the front (-1: none), and where on it (M, 3)."""
    index = np.flatnonzero(among)
    a, b, c = (template[faces[index, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    # edge-on triangles are not seen
    flat = np.abs(area) >= 1e-16
    index, area, a, b, c = (each[flat] for each in (index, area, a, b, c))
    corners = np.stack([a, b, c])[..., :2]
    low, high = corners.min(0) - _FINE, corners.max(0) + _FINE
    whole = (index, area, a, b, c)
    face, bary = np.full(len(places), -1), np.zeros((len(places), 3))
    for start in range(0, len(places), 512):
        some = places[start : start + 512]
        close = ((low <= some.max(0)) & (high >= some.min(0))).all(1)
        if not close.any():
            continue
        index, area, a, b, c = (each[close] for each in whole)
        x, y = some[:, 0, None], some[:, 1, None]
        v = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (y - a[:, 1])) / area
        w = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (x - a[:, 0]) * (b[:, 1] - a[:, 1])) / area
        u = 1 - v - w
        inside = (u >= 0) & (v >= 0) & (w >= 0)
        z = np.where(inside, u * a[:, 2] + v * b[:, 2] + w * c[:, 2], -np.inf)
        best = z.argmax(1)
        rows = np.arange(len(best))
        hit = np.isfinite(z[rows, best])
        at = slice(start, start + len(best))
        face[at] = np.where(hit, index[best], -1)
        bary[at] = np.stack([u[rows, best], v[rows, best], w[rows, best]], axis=1)
    return face, bary
