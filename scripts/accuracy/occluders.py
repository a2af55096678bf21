"""Hair, glasses and a body, as real avatars have them, around known vertices. Head space, metres."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.normals import angle_weighted_normals
from flame_fitting.capture.pictures import to_uint8

if TYPE_CHECKING:
    from flame_fitting.head.model import HeadModel

HAIR_MM = (8.0, 25.0)
"""Least and largest distance of the hair's surface from the scalp, away from its edge."""
_RINGS, _SPOKES = 64, 192


def occluder(name: str, head: "HeadModel", vertices: Float[ndarray, "V 3"], rng: np.random.Generator) -> list[MeshPart]:
    """Parts for one of hair, glasses, body; `vertices` are the posed head's, head space."""
    return {"hair": hair, "glasses": glasses, "body": body}[name](head, vertices, rng)


def hair(head: "HeadModel", vertices: Float[ndarray, "V 3"], rng: np.random.Generator) -> list[MeshPart]:
    """A shell around the scalp with a fringe, down over the tops of the ears and to the nape."""
    ids = {name: part.numpy() for name, part in head.regions.items()}
    ear, forehead = vertices[ids["ears"]], vertices[ids["forehead"]]
    center = np.array([0.0, np.quantile(ear[:, 1], 0.8), np.median(ear[:, 2])])
    theta, radius = _radii(vertices, head.faces.numpy(), center, rng)
    azimuth = 2 * np.pi * np.arange(_SPOKES) / _SPOKES

    # Where the hair ends: height by azimuth (0 is the front, pi / 2 the subject's left).
    low_ear, high_ear = np.quantile(ear[:, 1], [0.05, 0.95])
    fringe = np.quantile(forehead[:, 1], 0.35)
    temple = 0.55 * high_ear + 0.45 * fringe
    at = np.radians([0, 25, 50, 75, 100, 125, 180])
    # sideburns end before the ear's middle, then over the ear's top and down to the nape
    height = [fringe, fringe + 0.004, temple + 0.012, high_ear - 0.008, high_ear - 0.022, low_ear, low_ear - 0.015]
    folded = np.pi - np.abs(azimuth - np.pi)
    border = np.interp(folded, at, np.array(height))
    border += 0.002 * _wave(azimuth, 7, rng) + 0.0025 * _wave(azimuth, 23, rng) + 0.002 * _wave(azimuth, 61, rng)
    y = center[1] + radius * np.cos(theta)[:, None]
    inside = y >= border[None]
    last = np.where(inside.all(0), len(theta) - 1, np.argmin(inside, axis=0) - 1)
    end = theta[np.maximum(last, 1)]

    share = np.linspace(0, 1, _RINGS) ** 0.9
    angle = share[:, None] * end[None]
    base = np.stack([np.interp(angle[:, k], theta, radius[:, k]) for k in range(_SPOKES)], axis=1)
    strand = np.zeros_like(base)
    for waves, size in ((5, 1.0), (13, 0.8), (31, 0.5), (67, 0.25)):
        drift = 0.5 * _wave(azimuth, 3, rng)
        phase = rng.uniform(0, 2 * np.pi)
        bend = 1.5 * share[:, None] * rng.normal()
        strand += size * np.sin(waves * (azimuth[None] + 0.15 * drift[None] * share[:, None]) + phase + bend)
    strand *= np.clip(3 * share, 0, 1)[:, None]
    low, high = HAIR_MM
    thick = np.clip(0.5 * (low + high) + 3.0 * strand, low, high) / 1000
    edge = np.clip((1 - share) / 0.16, 0, 1)[:, None]
    thick = 0.004 + (thick - 0.004) * edge * (2 - edge)
    outer = center + _directions(angle, azimuth) * (base + thick)[..., None]
    # the edge turns inward, under the skin
    inner = center + _directions(angle[-1:], azimuth) * (base[-1:] - 0.006)[..., None]
    grid = np.concatenate([outer, inner])
    points, faces, uv = _sheet(grid)
    picture = _hair_picture(rng)
    return [_part("hair", points, faces, uv, picture)]


def glasses(head: "HeadModel", vertices: Float[ndarray, "V 3"], rng: np.random.Generator) -> list[MeshPart]:
    """Thick dark rims without lenses, a bridge, and temples to the ears."""
    ids = {name: part.numpy() for name, part in head.regions.items()}
    eyes = {side: vertices[ids[f"{side}_eyeball"]].mean(0) for side in ("left", "right")}
    front = vertices[head.region_mask("face", "eyelids").numpy()]
    middle = 0.5 * (eyes["left"] + eyes["right"])
    ear = vertices[ids["left_ear"]], vertices[ids["right_ear"]]
    half_width, half_height = 0.0255, 0.0195
    spread = max(float(eyes["left"][0] - eyes["right"][0]), 0.058) / 2
    centers = {sign: middle + [sign * (spread + 0.001), -0.003, 0.0] for sign in (1, -1)}
    # in front of lids, brows and the bridge of the nose
    near = np.abs(front[:, 1] - middle[1]) < half_height + 0.006
    near &= np.abs(front[:, 0] - middle[0]) < spread + half_width + 0.004
    away = np.abs(front[:, 0] - middle[0]) > 0.010
    depth = float(front[near & away][:, 2].max()) + 0.004
    bridge = float(front[near & ~away & (front[:, 1] > middle[1] - 0.004)][:, 2].max()) + 0.003
    paths = []
    for sign, center in centers.items():
        turn = np.linspace(0, 2 * np.pi, 49)[:-1]
        x = half_width * np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.55
        y = half_height * np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.55
        # the frame bends back a little on the outside
        z = np.full_like(x, max(depth, bridge - 0.004)) - 0.10 * np.maximum(sign * x, 0)
        ring = np.stack([center[0] + x, center[1] + y, z], axis=1)
        paths.append((ring, True, (0.0045, 0.0035)))
        # from the hinge around the temple to the top of the ear
        hinge = np.array([center[0] + sign * half_width, center[1] + 0.010, z.min()])
        side = ear[0] if sign > 0 else ear[1]
        top = side[side[:, 1] > np.quantile(side[:, 1], 0.9)].mean(0)
        behind = np.array([top[0] - sign * 0.004, top[1] - 0.006, np.quantile(side[:, 2], 0.25)])
        steps = np.linspace(0, 1, 24)[:, None]
        bar = (1 - steps) * hinge + steps * behind
        bar[:, 0] = sign * _outside(vertices, head, bar, sign, hinge, behind)
        paths.append((bar, False, (0.0055, 0.003)))
    inner = [centers[sign] + [-sign * half_width, 0.004, 0.0] for sign in (1, -1)]
    steps = np.linspace(0, 1, 9)
    arch = (1 - steps)[:, None] * inner[0] + steps[:, None] * inner[1]
    arch[:, 1] += 0.004 * np.sin(np.pi * steps)
    arch[:, 2] = np.maximum(depth, bridge) + 0.002 * np.sin(np.pi * steps)
    paths.append((arch, False, (0.005, 0.0035)))
    color = np.clip(np.array([0.10, 0.07, 0.06]) + rng.uniform(-0.03, 0.05), 0.02, 1)
    parts = []
    for path, closed, size in paths:
        points, faces = _bar(path, closed, *size)
        part = MeshPart(points, faces, "glasses", angle_weighted_normals(points, faces))
        shade = 0.9 + 0.1 * np.sin(900 * points[:, 0] + 700 * points[:, 1])
        part.vertex_colors = np.concatenate([color * shade[:, None], np.ones((len(points), 1))], axis=1)
        parts.append(part)
    return parts


def body(head: "HeadModel", vertices: Float[ndarray, "V 3"], rng: np.random.Generator) -> list[MeshPart]:
    """Shoulders and chest in a pullover, from a collar around the neck's rim downward."""
    rim = vertices[head.regions["bottomline"].numpy()]
    center = 0.5 * (rim.min(0) + rim.max(0))
    azimuth = 2 * np.pi * np.arange(_SPOKES) / _SPOKES
    direction = np.stack([np.sin(azimuth), np.cos(azimuth)], axis=1)
    around = np.arctan2(rim[:, 0] - center[0], rim[:, 2] - center[2])
    order = np.argsort(around)

    def by_azimuth(values: ndarray) -> ndarray:
        return np.interp(np.angle(np.exp(1j * azimuth)), around[order], values[order], period=2 * np.pi)

    reach = by_azimuth(np.hypot(rim[:, 0] - center[0], rim[:, 2] - center[2]))
    top = by_azimuth(rim[:, 1])
    # (down from the rim, metres out from it, share of the torso's outline)
    profile = [
        *((-0.012, -0.008, 0.0), (-0.014, 0.001, 0.0), (-0.014, 0.006, 0.0), (-0.006, 0.009, 0.0)),
        *((0.006, 0.011, 0.03), (0.016, 0.012, 0.12), (0.026, 0.012, 0.30), (0.038, 0.012, 0.52)),
        *((0.052, 0.01, 0.75), (0.072, 0.01, 0.92), (0.100, 0.01, 1.0), (0.150, 0.0, 1.0), (0.260, 0.0, 0.98)),
    ]
    smooth = np.linspace(0, len(profile) - 1, 60)
    down, out, share = (np.interp(smooth, np.arange(len(profile)), column) for column in np.array(profile).T)
    torso = (np.abs(direction[:, 0] / 0.205) ** 2.4 + np.abs(direction[:, 1] / 0.115) ** 2.4) ** (-1 / 2.4)
    radius = (1 - share[:, None]) * (reach[None] + out[:, None]) + share[:, None] * torso[None]
    # the collar follows the rim, the chest is level
    level = (1 - share[:, None]) * top[None] + share[:, None] * top.mean()
    fold = 0.003 * np.sin(5 * azimuth[None] + 40 * down[:, None]) * share[:, None]
    height = level - down[:, None] - 0.05 * share[:, None] * np.abs(direction[None, :, 0]) ** 2
    grid = np.stack(
        [
            center[0] + direction[None, :, 0] * (radius + fold),
            height,
            center[2] - 0.02 * share[:, None] + direction[None, :, 1] * (radius + fold),
        ],
        axis=-1,
    )
    points, faces, uv = _sheet(grid)
    return [_part("body", points, faces, uv, _cloth_picture(rng))]


def _part(name: str, points: ndarray, faces: ndarray, uv: ndarray, picture: ndarray) -> MeshPart:
    opaque = np.concatenate([picture, np.full_like(picture[..., :1], 255)], axis=2)
    return MeshPart(points, faces, name, angle_weighted_normals(points, faces), uv, opaque)


def _radii(
    vertices: ndarray, faces: ndarray, center: ndarray, rng: np.random.Generator
) -> tuple[Float[ndarray, " N"], Float[ndarray, "N S"]]:
    """Polar angles, and how far the surface reaches along each direction, smoothed but nowhere less by much."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum_filter

    rows = 120
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = rng.choice(len(faces), 400_000, p=area / area.sum())
    r, s = np.sqrt(rng.random(len(chosen))), rng.random(len(chosen))
    weights = np.stack([1 - r, r * (1 - s), r * s], axis=1)
    points = np.einsum("nk,nkc->nc", weights, corners[chosen]) - center
    distance = np.linalg.norm(points, axis=1)
    polar = np.arccos(np.clip(points[:, 1] / distance, -1, 1))
    row = np.minimum((polar / np.pi * rows).astype(int), rows - 1)
    column = np.floor(np.arctan2(points[:, 0], points[:, 2]) / (2 * np.pi) * _SPOKES + 0.5).astype(int) % _SPOKES
    far = np.zeros((rows, _SPOKES))
    np.maximum.at(far, (row, column), distance)
    nearest = distance_transform_edt(far == 0, return_distances=False, return_indices=True)
    far = far[nearest[0], nearest[1]]
    modes = ("nearest", "wrap")
    wide = gaussian_filter(maximum_filter(far, size=(5, 7), mode=modes), (2.5, 3.5), mode=modes)
    return (np.arange(rows) + 0.5) / rows * np.pi, np.maximum(wide, far)


def _directions(angle: ndarray, azimuth: ndarray) -> ndarray:
    sine = np.sin(angle)
    return np.stack([sine * np.sin(azimuth)[None], np.cos(angle), sine * np.cos(azimuth)[None]], axis=-1)


def _wave(azimuth: ndarray, count: int, rng: np.random.Generator) -> ndarray:
    """A sum of a few sines around the circle, about -1..1."""
    numbers = np.maximum(1, count + np.arange(-2, 3))
    return np.sum([rng.normal() * np.sin(n * azimuth + rng.uniform(0, 2 * np.pi)) for n in numbers], axis=0) / 2


def _sheet(grid: Float[ndarray, "R S 3"]) -> tuple[ndarray, Int[ndarray, "F 3"], ndarray]:
    """Rings of a surface of revolution as triangles, outside counter-clockwise; the seam's vertices are doubled."""
    rings, spokes = grid.shape[:2]
    grid = np.concatenate([grid, grid[:, :1]], axis=1)
    index = np.arange(rings * (spokes + 1)).reshape(rings, spokes + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    points = grid.reshape(-1, 3)
    corners = points[faces]
    size = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    u, v = np.meshgrid(np.linspace(0, 1, spokes + 1), np.linspace(1, 0, rings))
    return points, faces[size > 1e-12], np.stack([u, v], axis=-1).reshape(-1, 2)


def _bar(path: Float[ndarray, "N 3"], closed: bool, tall: float, deep: float) -> tuple[ndarray, ndarray]:
    """A bar of rectangular section along a path: `tall` across it in the upright plane, `deep` out of it."""
    ahead = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)
    if not closed:
        ahead[0], ahead[-1] = path[1] - path[0], path[-1] - path[-2]
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    level = np.abs(ahead[:, 2]).mean() > 0.5
    across = np.broadcast_to([0.0, 1.0, 0.0] if level else [0.0, 0.0, 1.0], ahead.shape)
    other = np.cross(ahead, across)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    across = np.cross(other, ahead)
    first, second = (tall, deep) if level else (deep, tall)
    section = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    grid = np.stack([path + 0.5 * (p * first * across + q * second * other) for p, q in section], axis=1)
    count = len(path)
    index = np.arange(count * 4).reshape(count, 4)
    following = np.roll(index, -1, axis=0) if closed else index[1:]
    here = index if closed else index[:-1]
    quads = [(here[:, k], following[:, k], following[:, (k + 1) % 4], here[:, (k + 1) % 4]) for k in range(4)]
    faces = [np.stack([a, b, c], 1) for a, b, c, _ in quads] + [np.stack([a, c, d], 1) for a, _, c, d in quads]
    if not closed:
        for row, flip in ((index[0], False), (index[-1], True)):
            cap = np.array([[row[0], row[1], row[2]], [row[0], row[2], row[3]]])
            faces.append(cap[:, ::-1] if flip else cap)
    return grid.reshape(-1, 3), np.concatenate(faces)


def _outside(
    vertices: ndarray, head: "HeadModel", bar: ndarray, sign: int, hinge: ndarray, behind: ndarray
) -> Float[ndarray, " N"]:
    """Distance from the mid-plane at which a bar passes the side of the head, without its ears."""
    skin = vertices[~head.region_mask("ears", "eyeballs").numpy()]
    skin = skin[sign * skin[:, 0] > 0.02]
    line = np.abs(np.linspace(hinge[0], behind[0], len(bar)))
    for k, point in enumerate(bar):
        near = (np.abs(skin[:, 2] - point[2]) < 0.008) & (np.abs(skin[:, 1] - point[1]) < 0.010)
        if near.any():
            line[k] = max(line[k], float(np.abs(skin[near, 0]).max()) + 0.003)
    smooth = np.convolve(np.pad(line, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    smooth = np.maximum(smooth, line)
    smooth[0] = abs(hinge[0])
    return smooth


def _hair_picture(rng: np.random.Generator, size: int = 1024) -> ndarray:
    """Dark strands from the crown (top) to the tips (bottom)."""
    from scipy.ndimage import gaussian_filter

    color = np.array([0.20, 0.13, 0.09]) * rng.uniform(0.7, 1.5)
    value = np.zeros((size, size))
    for along, across, amount in ((60.0, 1.0, 0.5), (120.0, 4.0, 0.6), (90.0, 14.0, 0.6), (40.0, 40.0, 0.3)):
        noise = gaussian_filter(rng.standard_normal((size, size)), (along, across), mode=("nearest", "wrap"))
        value += amount * noise / noise.std()
    picture = color * np.exp(0.28 * value)[..., None]
    return to_uint8(picture)


def _cloth_picture(rng: np.random.Generator, size: int = 1024) -> ndarray:
    """A knitted pullover."""
    from scipy.ndimage import gaussian_filter

    color = np.array([0.22, 0.34, 0.52]) * rng.uniform(0.8, 1.2)
    u, v = np.meshgrid(np.arange(size), np.arange(size))
    knit = 0.10 * np.sin(2 * np.pi * u / 8) + 0.06 * np.sin(2 * np.pi * v / 12)
    stripes = 0.25 * (np.sin(2 * np.pi * v / 170) > 0.4)
    noise = gaussian_filter(rng.standard_normal((size, size)), 12, mode="wrap")
    picture = color * (1 + knit - stripes + 0.12 * noise / noise.std())[..., None]
    return to_uint8(picture)
