"""Splats as the flat arrays that the drawing kernels take, and pictures of them from known cameras, on the CPU."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from flame_fitting.avatar.interface import OUTPUTS, RenderedViews
from flame_fitting.avatar.splat_kernels import (
    LEAST_ALPHA,
    LEAST_TRANSMITTANCE,
    TILE,
    blend,
    count_tiles,
    fill_tiles,
    meet,
    project,
)
from flame_fitting.avatar.splats import Splats, middle
from flame_fitting.render.jit import run

_NEAR = 0.01
"""Of the radius around the splats: nearer to the camera nothing is drawn."""
_FLAT = 1e-3
"""Thickness that a splat has at least where rays meet it, as a part of its longest side."""
_COVERED = 0.5
"""A pixel of which less is covered shows no surface."""
_TRANSLUCENT = 0.1
"""Share of the light that is gone at the outer side of a translucent layer."""
_OPAQUE, _SOLID = 0.9, 0.9
"""Opacity of splats that hide what is behind them, and the share of all splats' surface that they are in a solid."""
_QUICK_SPLATS, _QUICK_OPACITY, _QUICK_LIMITS = 7_000, 0.4, (0.1, 0.2)
"""Splats of a quick look, their opacity at least, and `SplatScene.limits`."""
_NONE = np.zeros(0)


@dataclass(frozen=True, eq=False)
class SplatScene:
    """What is the same in all views."""

    means: Float[np.ndarray, "N 3"]
    covariances: Float[np.ndarray, "N 6"]
    """xx, xy, xz, yy, yz, zz."""
    whitenings: Float[np.ndarray, "N 3 3"]
    """From the world into a splat's own axes over its standard deviations, of which the shortest is made shorter."""
    opacities: Float[np.ndarray, " N"]
    sh: Float[np.ndarray, "N K 3"]
    antialiased: bool
    near: float
    level: float
    """Share of the light that is gone where the surface is looked for."""
    limits: tuple[float, float] = (LEAST_ALPHA, LEAST_TRANSMITTANCE)
    """Of a pixel: what is drawn covers at least so much, and until so much of the light is left."""


def build_scene(splats: Splats, degree: int | None = None) -> SplatScene:
    """The scene of splats, with colours of a lower degree where one is given."""
    rotations, scales = splats.rotations, splats.scales.astype(np.float64)
    shaped = rotations * scales[:, None]
    covariance = shaped @ shaped.swapaxes(1, 2)
    thick = np.maximum(_disc(scales), np.maximum(_FLAT * scales.max(axis=1, keepdims=True), 1e-30))
    count = (_used_degree(splats) if degree is None else min(splats.degree, degree)) + 1
    return SplatScene(
        means=np.ascontiguousarray(splats.means),
        covariances=np.ascontiguousarray(covariance.reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]),
        whitenings=np.ascontiguousarray(rotations.swapaxes(1, 2) / thick[:, :, None]),
        opacities=splats.opacities,
        sh=np.ascontiguousarray(splats.sh[:, : count**2]),
        antialiased=splats.antialiased,
        near=_NEAR * middle(splats.means, 0.99)[1],
        level=_COVERED if is_solid(splats) else _TRANSLUCENT,
    )


def is_solid(splats: Splats) -> bool:
    """Whether it is made of opaque splats, so that its surface is theirs.

    Splats that are trained on pictures alone are of all opacities: a layer of some depth, looked into, whose outer side
    is the surface.
    """
    area = np.prod(np.sort(splats.scales.astype(np.float64), axis=1)[:, 1:], axis=1) * splats.opacities
    return bool(area[splats.opacities >= _OPAQUE].sum() >= _SOLID * area.sum())


def quick_scene(splats: Splats) -> SplatScene:
    """A scene for a quick look at small pictures: fewer splats of one colour each, cut where they are faint."""
    solid = splats.opacities >= _QUICK_OPACITY
    some = splats.taken(solid) if solid.mean() > 0.2 else splats
    return replace(build_scene(coarse(some, _QUICK_SPLATS), 0), limits=_QUICK_LIMITS)


def quick_pictures(
    scene: SplatScene, K: np.ndarray, world_to_camera: np.ndarray, width: int, height: int, background: Iterable[float]
) -> RenderedViews:
    """Pictures of a `quick_scene`, whose gaps are filled: what is half covered is covered."""
    behind = np.array(list(background), dtype=np.float32)[:, None, None]
    views = draw_splats(scene, K, world_to_camera, width, height, (0.0, 0.0, 0.0), ("image", "alpha"))
    assert views.image is not None and views.alpha is not None
    alpha = views.alpha[:, None]
    covered = np.clip(alpha / _COVERED - 0.5, 0.0, 1.0)
    views.image = views.image / np.maximum(alpha, 1e-6) * covered + (1.0 - covered) * behind
    return RenderedViews(image=views.image)


def coarse(splats: Splats, most: int, seed: int = 0) -> Splats:
    """At most so many of the splats, by chance, each larger by as much as there are fewer."""
    if len(splats) <= most:
        return splats
    chosen = splats.taken(np.sort(np.random.default_rng(seed).choice(len(splats), most, replace=False)))
    return replace(chosen, scales=chosen.scales * np.float32(np.sqrt(len(splats) / most)))


def _used_degree(splats: Splats) -> int:
    """Highest degree of which any coefficient is not 0: exporters write all, used or not."""
    return max((k for k in range(1, splats.degree + 1) if splats.sh[:, k**2 : (k + 1) ** 2].any()), default=0)


def _disc(scales: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Scales with the shortest one shorter still, by the square of its ratio to the next, down to none.

    What is flatter than round is meant as a piece of a surface: its plane counts, and no longer where rays from one
    camera are nearest to its centre, which tilts its normal to that camera. A round splat stays round.
    """
    shortest, next_ = np.sort(scales, axis=1)[:, :2].T
    factor = (shortest / np.maximum(next_, 1e-30)) ** 2
    return np.where(scales == shortest[:, None], scales * factor[:, None], scales)


def draw_splats(
    scene: SplatScene,
    K: Float[np.ndarray, "B 3 3"],
    world_to_camera: Float[np.ndarray, "B 4 4"],
    width: int,
    height: int,
    background: Iterable[float | int] = (1.0, 1.0, 1.0),
    outputs: Iterable[str] = OUTPUTS,
    weights: Float[np.ndarray, " N"] | None = None,
    relit: Callable[[int, Float[np.ndarray, "M 3"], Int[np.ndarray, " M"]], np.ndarray] | None = None,
) -> RenderedViews:
    """Pictures from B cameras (OpenCV axes, px, skew ignored); see `interface.Avatar.draw`.

    Pixels are filtered as splats are trained to be, by `splat_kernels.DILATION`, so there is nothing to supersample.
    `weights` (N,) is raised to the largest weight that each splat has in any pixel. `relit` gives other colours (M, 3)
    for the number of a view, the colours of the splats it sees, and which they are.
    """
    wanted, count = set(outputs), len(K)
    views = RenderedViews()
    pictures = bool({"image", "alpha"} & wanted) or weights is not None
    surface = bool({"depth", "normal"} & wanted)
    if pictures:
        views.image = np.empty((count, 3, height, width), dtype=np.float32)
        views.alpha = np.empty((count, height, width), dtype=np.float32)
    if surface:
        views.depth = np.empty((count, height, width), dtype=np.float32)
        views.normal = np.empty((count, height, width, 3), dtype=np.float32)
    color = np.array([float(value) for value in background])
    seen = _Seen(len(scene.means))
    for b in range(count):
        camera = np.ascontiguousarray(world_to_camera[b][:3], dtype=np.float64)
        eye = -camera[:, :3].T @ camera[:, 3]
        lens = (float(K[b][0, 0]), float(K[b][1, 1]), float(K[b][0, 2]), float(K[b][1, 2]))
        bounds, members, across, rows = seen.look(scene, camera, eye, lens, width, height)
        tiles = len(bounds) - 1
        if relit is not None:
            seen.color[rows] = relit(b, seen.color[rows], rows)
        if views.image is not None and views.alpha is not None:
            lists = (across, bounds, members, seen.flat, seen.color, seen.box)
            blending = (*lists, color, *scene.limits, views.image[b], views.alpha[b])
            if weights is None:
                run(blend, tiles, *blending, _NONE)
            else:
                blend(0, tiles, *blending, weights)
        if views.depth is not None and views.normal is not None:
            where = (scene.means, camera, eye, lens, scene.level, _COVERED, views.depth[b], views.normal[b])
            run(meet, tiles, across, bounds, members, seen.flat, seen.surface, seen.box, *where)
    for name in OUTPUTS:
        if name not in wanted:
            setattr(views, name, None)
    return views


class _Seen:
    """What one view sees of each splat, in buffers that all views share."""

    def __init__(self, count: int) -> None:
        self.flat = np.zeros((count, 8))
        self.color = np.zeros((count, 3))
        self.surface = np.zeros((count, 12))
        self.box = np.zeros((count, 4), dtype=np.int32)

    def look(
        self, scene: SplatScene, camera: np.ndarray, eye: np.ndarray, lens: tuple, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray, int, np.ndarray]:
        """Projects all splats.

        Returns where each tile's list begins (and ends), the lists front to back, tiles in a row, and who is seen.
        """
        planes = (scene.near, np.inf)
        inputs = (scene.means, scene.covariances, scene.whitenings, scene.opacities, scene.sh, camera, eye, lens)
        outputs = (self.flat, self.color, self.surface, self.box)
        run(project, len(scene.means), *inputs, (width, height), planes, scene.antialiased, *outputs)
        box = self.box
        order = np.flatnonzero((box[:, 0] <= box[:, 1]) & (box[:, 2] <= box[:, 3]))
        order = order[np.argsort(self.flat[order, 6], kind="stable")]
        across, down = -(-width // TILE), -(-height // TILE)
        counts = np.zeros(across * down, dtype=np.int64)
        count_tiles(0, len(order), order, box, across, counts)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        members = np.empty(bounds[-1], dtype=np.int64)
        fill_tiles(0, len(order), order, box, across, bounds[:-1].copy(), members)
        return bounds, members, across, order
