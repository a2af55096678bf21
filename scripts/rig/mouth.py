"""Teeth and tongue for heads that have none: parts of their own, which follow the head and its jaw."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.maths.normals import vertex_normals

TEETH_MM = (8.4, 6.6, 7.6, 7.0, 6.8, 9.5)
"""Widths from the middle outward, along the arch."""
LOWER = 0.78
"""Of the lower teeth's width to the upper ones'."""
ARCH_MM = (26.0, 38.0)
"""Half width and depth of the upper arch."""
BEHIND_LIPS_MM = 8.5
CORNERS_MM = 23.2
"""Half the distance of the mouth's inner corners that these measures belong to."""
COLUMNS = 7
"""Vertices across a tooth."""
ENAMEL, GUM, TONGUE, GAP = (0.86, 0.82, 0.74), (0.62, 0.30, 0.29), (0.60, 0.30, 0.30), (0.45, 0.36, 0.30)
HEAD, JAW = 1, 2
"""Joints."""


@dataclass(eq=False)
class Mouth:
    """Parts at rest, each with the joint that carries it."""

    parts: list[tuple[MeshPart, int]]

    def posed(self, rotation: Float[ndarray, "J 3 3"], shift: Float[ndarray, "J 3"]) -> list[MeshPart]:
        """The parts carried by their joints: x -> R_j x + t_j."""
        out = []
        for part, joint in self.parts:
            assert part.normals is not None
            turn = rotation[joint].T
            out.append(replace(part, vertices=part.vertices @ turn + shift[joint], normals=part.normals @ turn))
        return out


def make_mouth(inner_lips: Float[ndarray, "8 3"]) -> Mouth:
    """Teeth behind the inner contour of closed lips: iBUG points 60 to 67, metres, head space."""
    size = 0.5e3 * np.linalg.norm(inner_lips[4] - inner_lips[0]) / CORNERS_MM
    middle = 0.5 * (inner_lips[2] + inner_lips[6])
    front = middle - [0, 0, 1e-3 * BEHIND_LIPS_MM * size]
    upper = _row(front + [0, -0.0022 * size, 0], size, up=1.0, width=1.0)
    lower = _row(front + [0, -0.0012 * size, -0.0026 * size], size, up=-1.0, width=LOWER)
    return Mouth([(upper, HEAD), (lower, JAW), (_tongue(front, size), JAW)])


def _row(edge: Float[ndarray, " 3"], size: float, up: float, width: float) -> MeshPart:
    """One row of teeth: from the back of the gum over the front to the edge and behind it."""
    along, across = _columns()
    along = 1e-3 * size * width * along
    x, z, normal_x, normal_z = _arch(along, 1e-3 * size * np.array(ARCH_MM) * (0.6 + 0.4 * width))
    round_off = across**4
    # height above the edge, out of the arch (m), how much of a gap is seen there
    tall = 0.0088 * (1 - 0.25 * np.minimum(np.abs(along) / 0.03, 1))
    rows = [
        (0.019 + 0 * tall, -0.0015 - 0 * tall, 0.0, GUM),
        (0.013 + 0 * tall, 0.0002 + 0 * tall, 0.0, GUM),
        (tall + 0.0012 * round_off, 0.0003 + 0 * tall, 0.0, GUM),
        (tall + 0.0012 * round_off - 0.0004, 0 * tall, 0.6, ENAMEL),
        (0.6 * tall, 0.0006 * (1 - round_off), 1.0, ENAMEL),
        (0.15 * tall, 0.0005 * (1 - round_off), 1.0, ENAMEL),
        (0.0007 * round_off, -0.0003 - 0 * tall, 1.0, ENAMEL),
        (0.0007 * round_off, -0.0016 - 0 * tall, 1.0, ENAMEL),
        (tall, -0.0050 - 0 * tall, 0.3, GUM),
    ]
    dim = 1 - 0.45 * np.minimum(np.abs(along) / (0.028 * size), 1) ** 1.5
    vertices, colors = [], []
    for height, out, gap, color in rows:
        place = np.stack([x + normal_x * out * size, up * height * size, z + normal_z * out * size], axis=1)
        vertices.append(place + edge)
        seen = (gap * across**8)[:, None]
        colors.append(((1 - seen) * np.array(color) + seen * np.array(GAP)) * dim[:, None])
    return _sheet(np.stack(vertices), np.stack(colors), flip=up < 0, name="teeth")


def _columns() -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """Along the arch (mm, 0 in the middle) and across each tooth (-1..1)."""
    inside = np.linspace(-1, 1, COLUMNS)
    along, across, start = [], [], 0.0
    for width in TEETH_MM:
        along.append(start + 0.5 * width * (1 + 0.96 * inside))
        across.append(inside)
        start += width
    half, shape = np.concatenate(along), np.concatenate(across)
    return np.concatenate([-half[::-1], half]), np.concatenate([shape[::-1], shape])


def _arch(along: Float[ndarray, " n"], radii: Float[ndarray, " 2"]) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """x, z and the outward normal on an ellipse, by the length along it from its front."""
    angle = np.linspace(-1.5, 1.5, 2001)
    x, z = radii[0] * np.sin(angle), radii[1] * (np.cos(angle) - 1)
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    at = np.interp(along, length - length[1000], angle)
    normal = np.stack([np.sin(at) / radii[0], np.cos(at) / radii[1]])
    normal /= np.linalg.norm(normal, axis=0)
    return radii[0] * np.sin(at), radii[1] * (np.cos(at) - 1), normal[0], normal[1]


def _tongue(front: Float[ndarray, " 3"], size: float) -> MeshPart:
    around, along = np.meshgrid(np.linspace(0, np.pi, 15), np.linspace(0.02, np.pi - 0.02, 15), indexing="ij")
    x = 0.017 * np.cos(around) * np.sin(along)
    y = 0.009 * np.sin(around) * np.sin(along) - 0.0016 * np.exp(-((x / 0.003) ** 2)) * np.sin(along)
    z = 0.024 * np.cos(along)
    vertices = size * np.stack([x, y, z], axis=-1) + front + size * np.array([0, -0.0125, -0.031])
    return _sheet(vertices, np.broadcast_to(TONGUE, vertices.shape).copy(), flip=True, name="tongue")


def _sheet(vertices: Float[ndarray, "R C 3"], colors: Float[ndarray, "R C 3"], flip: bool, name: str) -> MeshPart:
    """A grid as triangles; seen from both sides."""
    rows, columns = vertices.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.reshape(-1) for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    faces = faces[:, ::-1] if flip else faces
    flat = vertices.reshape(-1, 3)
    rgba = np.concatenate([colors.reshape(-1, 3), np.ones((len(flat), 1))], axis=1)
    return MeshPart(
        flat, faces.astype(np.int64), name, vertex_normals(flat, faces), vertex_colors=rgba, double_sided=True
    )
