"""A neutral skin texture painted by rule: a colour for every point of the template, so no seam can show."""

import numpy as np
from numba import njit
from scipy.ndimage import distance_transform_edt, gaussian_filter

from open_head.eyes import IRIS_ANGLE

SKIN = np.array([206, 158, 134.0])
LIP = np.array([172, 96, 90.0])
BROW = np.array([62, 42, 32.0])
HAIR = np.array([66, 50, 42.0])


@njit(cache=True)
def _bake(uv, uv_faces, size, rows, weights):
    for f in range(len(uv_faces)):
        a, b, c = uv[uv_faces[f, 0]], uv[uv_faces[f, 1]], uv[uv_faces[f, 2]]
        det = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if det == 0:
            continue
        x0, x1 = int(np.floor(min(a[0], b[0], c[0]))), int(np.ceil(max(a[0], b[0], c[0])))
        y0, y1 = int(np.floor(min(a[1], b[1], c[1]))), int(np.ceil(max(a[1], b[1], c[1])))
        for j in range(max(y0, 0), min(y1 + 1, size)):
            for i in range(max(x0, 0), min(x1 + 1, size)):
                px, py = i + 0.5, j + 0.5
                w1 = ((px - a[0]) * (c[1] - a[1]) - (py - a[1]) * (c[0] - a[0])) / det
                w2 = ((b[0] - a[0]) * (py - a[1]) - (b[1] - a[1]) * (px - a[0])) / det
                w0 = 1 - w1 - w2
                if w0 >= -1e-9 and w1 >= -1e-9 and w2 >= -1e-9:
                    rows[j, i] = f
                    weights[j, i, 0], weights[j, i, 1], weights[j, i, 2] = w0, w1, w2


def texel_map(uv: np.ndarray, uv_faces: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Face index (size, size), -1 where empty, and barycentric weights (size, size, 3) of each texel; row 0 on top."""
    pixels = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float64) * size
    rows, weights = np.full((size, size), -1, dtype=np.int64), np.zeros((size, size, 3))
    _bake(pixels, uv_faces.astype(np.int64), size, rows, weights)
    return rows, weights


def noise(points: np.ndarray, wavelength: float, rng: np.random.Generator, octaves: int = 1) -> np.ndarray:
    """Smooth value noise (n,) in about -1..1 at points (n, 3) metres."""
    out = np.zeros(len(points))
    total = 0.0
    for octave in range(octaves):
        lattice = rng.uniform(-1, 1, (32, 32, 32))
        place = points / (wavelength / 2**octave) + rng.uniform(0, 32, 3)
        cell = np.floor(place).astype(np.int64)
        t = place - cell
        t = t * t * (3 - 2 * t)
        value = np.zeros(len(points))
        for corner in range(8):
            bits = np.array([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
            weight = np.prod(np.where(bits, t, 1 - t), axis=1)
            index = (cell + bits) % 32
            value += weight * lattice[index[:, 0], index[:, 1], index[:, 2]]
        out += value / 2**octave
        total += 1 / 2**octave
    return 1.6 * out / total


@njit(cache=True)
def _depth_buffer(points, faces, size, depth):
    for f in range(len(faces)):
        a, b, c = points[faces[f, 0]], points[faces[f, 1]], points[faces[f, 2]]
        det = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if det == 0:
            continue
        x0, x1 = int(np.floor(min(a[0], b[0], c[0]))), int(np.ceil(max(a[0], b[0], c[0])))
        y0, y1 = int(np.floor(min(a[1], b[1], c[1]))), int(np.ceil(max(a[1], b[1], c[1])))
        for j in range(max(y0, 0), min(y1 + 1, size)):
            for i in range(max(x0, 0), min(x1 + 1, size)):
                w1 = ((i - a[0]) * (c[1] - a[1]) - (j - a[1]) * (c[0] - a[0])) / det
                w2 = ((b[0] - a[0]) * (j - a[1]) - (b[1] - a[1]) * (i - a[0])) / det
                if w1 >= 0 and w2 >= 0 and w1 + w2 <= 1:
                    z = (1 - w1 - w2) * a[2] + w1 * b[2] + w2 * c[2]
                    if z > depth[j, i]:
                        depth[j, i] = z


def openness(vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, directions: int = 96) -> np.ndarray:
    """Share (V,) 0..1 of the sky, cosine-weighted, that each vertex sees: depth buffers from many directions."""
    size, scale = 384, 384 / 0.52
    index = np.arange(directions) + 0.5
    height = 1 - 2 * index / directions
    turn = np.pi * (1 + 5**0.5) * index
    axes = np.stack([np.cos(turn) * np.sqrt(1 - height**2), height, np.sin(turn) * np.sqrt(1 - height**2)], axis=1)
    seen, total = np.zeros(len(vertices)), np.zeros(len(vertices))
    center = 0.5 * (vertices.min(0) + vertices.max(0))
    for axis in axes:
        side = np.cross(axis, [0.31, 0.87, 0.38])
        side /= np.linalg.norm(side)
        frame = np.stack([side, np.cross(axis, side), axis])
        points = (vertices + 0.0012 * normals - center) @ frame.T * scale
        surface = (vertices - center) @ frame.T * scale
        points[:, :2] += size / 2
        surface[:, :2] += size / 2
        depth = np.full((size, size), -np.inf)
        _depth_buffer(surface, faces.astype(np.int64), size, depth)
        column, row = np.round(points[:, 0]).astype(int), np.round(points[:, 1]).astype(int)
        weight = np.clip(normals @ axis, 0, None)
        free = points[:, 2] >= depth[np.clip(row, 0, size - 1), np.clip(column, 0, size - 1)] - 0.0005 * scale
        seen += weight * free
        total += weight
    return seen / np.maximum(total, 1e-9)


def smooth01(low: float, high: float, value: np.ndarray) -> np.ndarray:
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(color: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    return color + (other - color) * share[:, None]


def bump(points: np.ndarray, center: tuple[float, float, float], radius: tuple[float, float, float]) -> np.ndarray:
    """Gaussian (n,) about a point and its mirror image, eye-centred coordinates."""
    mirrored = points * np.array([1, 1, 1])
    mirrored = np.stack([np.abs(points[:, 0]), points[:, 1], points[:, 2]], axis=1)
    return np.exp(-(((mirrored - center) / np.array(radius)) ** 2).sum(1))


def brow_picture(rng: np.random.Generator, density: int = 420) -> tuple[np.ndarray, float]:
    """Coverage 0..1 of brow hairs in the front plane: rows y from +0.045 down to 0, columns x 0..0.07; px per metre."""
    import cv2

    scale = 12000.0
    picture = np.zeros((int(0.045 * scale), int(0.07 * scale)), dtype=np.float32)
    for _ in range(density):
        t = rng.uniform(0, 1)
        x = 0.011 + 0.042 * t
        middle = BROW_HEIGHT(t)
        half = 0.0042 * (1 - 0.62 * t) * (0.75 + 0.25 * np.sin(np.pi * min(t * 4, 1) / 2))
        y = middle + rng.normal(0, 0.5) * half
        angle = np.radians(72 - 68 * min(t * 1.5, 1.0) - 22 * max(t - 0.66, 0) * 3 + rng.normal(0, 9))
        if y > middle:
            angle -= np.radians(18)
        length = rng.uniform(0.0035, 0.0065) * (1 - 0.35 * t)
        a = np.array([x, y])
        b = a + length * np.array([np.cos(angle), np.sin(angle)])
        points = [(int(p[0] * scale * 16), int((0.045 - p[1]) * scale * 16)) for p in (a, b)]
        stroke = np.zeros_like(picture)
        cv2.line(stroke, points[0], points[1], float(rng.uniform(0.35, 0.75)), 3, cv2.LINE_AA, 4)
        picture = 1 - (1 - picture) * (1 - stroke)
    return gaussian_filter(picture, 1.6), scale


def BROW_HEIGHT(t: float) -> float:
    """Height over the eye centre of the brow's middle line, t from the nose outward."""
    return 0.0145 + 0.0046 * np.sin(np.pi * min(t / 1.25, 1.0)) - 0.0030 * max(t - 0.7, 0) / 0.3


def paint(
    vertices: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray,
    uv_faces: np.ndarray,
    fields: dict[str, np.ndarray],
    eye_center: np.ndarray,
    ball_directions: np.ndarray,
    size: int,
    seed: int,
    lip_height: np.ndarray,
) -> np.ndarray:
    """Texture (size, size, 3) uint8 sRGB. Painted at twice the size, then averaged down."""
    rng = np.random.default_rng(seed)
    big = 2 * size
    rows, weights = texel_map(uv, uv_faces, big)
    filled = rows >= 0
    face, w = faces[rows[filled]], weights[filled]
    n_skin = len(vertices) - 2 * len(ball_directions)
    position = np.einsum("nk,nkc->nc", w, vertices[face]) - eye_center
    color = np.zeros((len(face), 3))
    is_ball = face[:, 0] >= n_skin

    def field(name: str) -> np.ndarray:
        return np.einsum("nk,nk->n", w[~is_ball], fields[name][face[~is_ball]])

    color[~is_ball] = _skin_color(
        position[~is_ball], field, np.einsum("nk,nk->n", w[~is_ball], lip_height[face[~is_ball]]), rng
    )
    direction = np.einsum("nk,nkc->nc", w[is_ball], ball_directions[(face[is_ball] - n_skin) % len(ball_directions)])
    color[is_ball] = _eye_color(direction / np.linalg.norm(direction, axis=1, keepdims=True), rng)
    picture = np.zeros((big, big, 3))
    picture[filled] = color
    # gutter: empty texels take the nearest painted one
    nearest = distance_transform_edt(~filled, return_distances=False, return_indices=True)
    picture = picture[nearest[0], nearest[1]]
    picture = picture.reshape(size, 2, size, 2, 3).mean((1, 3))
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def _skin_color(p: np.ndarray, field, lip_height: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x, y, z = p.T
    color = np.repeat(SKIN[None], len(p), 0)
    color *= 1 + 0.030 * noise(p, 0.03, rng, 3)[:, None]
    color += np.array([4.0, -3.0, -3.0]) * noise(p, 0.012, rng, 2)[:, None]
    color *= 1 + 0.018 * noise(p, 0.0022, rng, 2)[:, None]
    red = np.array([200, 122, 106.0])
    color = mix(color, red, 0.34 * bump(p, (0.036, -0.032, 0.005), (0.018, 0.017, 0.04)))
    color = mix(color, red, 0.30 * bump(p, (0.0, -0.034, 0.035), (0.014, 0.012, 0.02)))
    color = mix(color, red, 0.42 * smooth01(0.15, 0.7, field("ear")))
    color = mix(color, red, 0.12 * bump(p, (0.0, -0.105, 0.02), (0.022, 0.014, 0.04)))
    forehead = smooth01(0.02, 0.05, y) * (z > -0.06)
    color = mix(color, np.array([216, 176, 148.0]), 0.25 * forehead)
    # orbits: a little darker and bluer below the brow and under the eye
    color *= 1 - 0.16 * bump(p, (0.031, -0.013, 0.012), (0.016, 0.007, 0.03))[:, None]
    color *= 1 - 0.15 * bump(p, (0.030, 0.009, 0.012), (0.019, 0.006, 0.03))[:, None]
    color *= 1 - 0.10 * bump(p, (0.012, -0.002, 0.01), (0.006, 0.010, 0.02))[:, None]
    # fold beside the nose, under the lip
    fold = np.exp(-(((np.abs(x) - (0.020 + 0.35 * np.clip(-y - 0.040, 0, 0.03))) / 0.004) ** 2))
    color *= 1 - 0.06 * (fold * smooth01(-0.078, -0.066, y) * (1 - smooth01(-0.044, -0.036, y)) * (z > -0.02))[:, None]
    color *= 1 - 0.10 * bump(p, (0.0, -0.0915, 0.02), (0.014, 0.0035, 0.03))[:, None]
    # beard shadow and neck
    color *= 1 - 0.05 * (smooth01(-0.115, -0.16, y))[:, None]
    # lids
    rim = field("rim_distance")
    front = z > -0.02
    upper_lid = smooth01(-0.006, 0.0, y + 0.0016)
    color = mix(color, np.array([150, 96, 84.0]), 0.55 * np.exp(-((rim / 0.004) ** 2)) * front)
    lash = np.exp(-(((rim - 0.0040) / 0.0016) ** 2)) * front
    color = mix(color, np.array([34, 24, 22.0]), lash * (0.30 + 0.58 * upper_lid))
    color = mix(color, np.array([120, 76, 66.0]), 0.35 * upper_lid * np.exp(-(((rim - 0.0115) / 0.0014) ** 2)) * front)
    # lips
    ring = field("ring_distance")
    lip = smooth01(-0.0016, 0.0010, lip_height - ring) * (np.abs(x) < 0.031)
    lip_color = LIP * (1 + 0.06 * noise(p * [3.0, 0.6, 1.0], 0.004, rng, 2)[:, None])
    lip_color *= np.where(field("upper") > 0.5, 0.90, 1.03)[:, None]
    color = mix(color, lip_color, 0.85 * lip)
    color = mix(color, np.array([84, 34, 34.0]), 0.85 * np.exp(-((ring / 0.0024) ** 2)))
    # inside
    color = mix(color, np.array([104, 42, 42.0]), field("bag") * smooth01(0.001, 0.006, ring))
    color = mix(color, np.array([124, 66, 60.0]), 0.9 * field("socket"))
    color = mix(color, np.array([52, 22, 20.0]), 0.85 * smooth01(0.25, 1.0, field("nostril")))
    # soft shade where little light gets in, a little redder as light scatters in skin
    shade = np.clip((field("openness") - 0.06) / 0.80, 0, 1)[:, None]
    color *= (
        1
        - np.array([0.46, 0.58, 0.61])
        * (1 - shade)
        * (1 - 0.7 * np.clip(field("bag") + field("socket"), 0, 1))[:, None]
    )
    # brows
    picture, scale = brow_picture(rng)
    column = np.clip((np.abs(x) * scale).astype(int), 0, picture.shape[1] - 1)
    row = np.clip(((0.045 - y) * scale).astype(int), 0, picture.shape[0] - 1)
    cover = picture[row, column] * front
    color = mix(color, BROW, 0.88 * cover)
    # short hair: hairline softened by noise
    ragged = 0.004 * noise(p, 0.010, rng, 2) + 0.0016 * noise(p, 0.0022, rng)
    line = 0.082 - 0.010 * (np.abs(x) / 0.05) ** 2
    above = y - line + ragged
    behind = -0.052 - z + ragged + 0.25 * np.clip(y - 0.02, -0.05, 0.05)
    nape = y + 0.062 + 0.10 * np.clip(z + 0.10, -0.05, 0.02) + ragged
    top = np.maximum(above, np.minimum(behind, nape))
    hair = smooth01(-0.003, 0.006, top) * (1 - smooth01(0.25, 0.6, field("ear")))
    grain = 0.78 + 0.22 * noise(p * [1.0, 0.35, 0.6], 0.0016, rng)
    color = mix(color, HAIR * (1 + 0.10 * noise(p, 0.004, rng, 2))[:, None], 0.72 * hair * np.clip(grain, 0, 1))
    return color


def _eye_color(direction: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # in the numbers below the iris ends at 22.5
    angle = np.degrees(np.arccos(np.clip(direction[:, 2], -1, 1))) * (22.5 / IRIS_ANGLE)
    around = np.arctan2(direction[:, 1], direction[:, 0])
    color = np.repeat(np.array([[226, 219, 212.0]]), len(angle), 0)
    vein = np.clip(noise(direction * 0.01, 0.002, rng, 3) - 0.1, 0, 1) * smooth01(30, 70, angle)
    color = mix(color, np.array([196, 120, 110.0]), 0.5 * vein)
    color *= 1 - 0.10 * smooth01(35, 60, angle)[:, None]
    spokes = sum(np.sin(k * around + rng.uniform(0, 6)) * rng.uniform(0.3, 1) for k in (17, 23, 31, 43, 57)) / 3
    iris = np.array([104, 74, 48.0]) * (1 + 0.20 * spokes[:, None]) * (0.80 + 0.45 * smooth01(8, 17, angle))[:, None]
    iris = mix(iris, np.array([34, 24, 18.0]), smooth01(18.2, 21.5, angle))
    color = mix(color, iris, 1 - smooth01(20.8, 22.6, angle))
    return mix(color, np.array([10, 8, 8.0]), 1 - smooth01(7.4, 8.4, angle))
