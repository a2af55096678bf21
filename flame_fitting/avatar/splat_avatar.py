"""Gaussian splats as an avatar."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from flame_fitting.avatar.interface import OUTPUTS, SHADINGS, RenderedViews
from flame_fitting.avatar.lights import CLAY_GREY, light_on, lights_in_world, occlusion_left
from flame_fitting.avatar.splat_occlusion import Outside, outside_of
from flame_fitting.avatar.splat_scene import SplatScene, build_scene, draw_splats, is_solid, quick_pictures, quick_scene
from flame_fitting.avatar.splats import SH_C0, Splats
from flame_fitting.avatar.view_fusion import DepthViews, moved_out, settled_depth, shift_by_colors, unseen_views

_SPREAD = 0.01
"""Standard deviation of colours (0..1) that show something."""
_AWAY = -0.1
"""Cosine between a splat's outer side and the camera below which its inner side is seen."""
_QUICK_SIZE = 256
_MOST_SIZE = 512
"""Pictures that tell about the surface are drawn no larger."""
_COMPARED_VIEWS = 12


@dataclass(eq=False)
class SplatAvatar:
    """See `interface.Avatar`."""

    splats: Splats
    """Not to be changed once it was drawn."""
    path: Path
    file_hash: str
    format: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    views: DepthViews | None = None
    """What it was settled by."""
    shift: float = 0.0
    """How far outside the depth of its views the surface lies, world units."""

    @property
    def geometry(self) -> Literal["splats"]:
        """Splats: their surface is made of pictures, and may be off."""
        return "splats"

    @property
    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Smallest and largest coordinates of centres."""
        return np.stack([self.splats.means.min(axis=0), self.splats.means.max(axis=0)])

    @property
    def points(self) -> Float[np.ndarray, "N 3"]:
        """Centres."""
        return self.splats.means

    @property
    def has_color(self) -> bool:
        """Whether base colours vary, each counted by its opacity."""
        colors, weights = 0.5 + SH_C0 * self.splats.sh[:, 0], self.splats.opacities
        mean = np.average(colors, axis=0, weights=weights)
        return bool(np.sqrt(np.average((colors - mean) ** 2, axis=0, weights=weights)).max() > _SPREAD)

    @cached_property
    def scene(self) -> SplatScene:
        """What the drawing kernels take."""
        return build_scene(self.splats)

    @cached_property
    def _quick(self) -> SplatScene:
        return quick_scene(self.splats)

    @cached_property
    def outside(self) -> Outside:
        """What light needs to know of each splat."""
        return outside_of(self.splats)

    def normalized(self, center: Float[np.ndarray, " 3"], scale: float) -> "SplatAvatar":
        """The avatar in the frame of (x - center) / scale."""
        splats = self.splats.normalized(center, scale)
        return SplatAvatar(splats, self.path, self.file_hash, self.format, self.notes, self.warnings)

    def settled(
        self, K: Float[np.ndarray, "V 3 3"], world_to_camera: Float[np.ndarray, "V 4 4"], size: int
    ) -> "SplatAvatar":
        """See `interface.Avatar.settled`."""
        smaller = min(size, _MOST_SIZE)
        K = np.diag([smaller / size, smaller / size, 1.0]) @ K
        drawn = self._draw(K, world_to_camera, smaller, smaller, outputs=("depth", "normal"))
        assert drawn.depth is not None and drawn.normal is not None
        views, shift = DepthViews(drawn.depth, drawn.normal, K, world_to_camera), 0.0
        if not is_solid(self.splats):

            def picture(k: int) -> Float[np.ndarray, "3 H W"]:
                image = self._draw(K[k : k + 1], world_to_camera[k : k + 1], smaller, smaller, outputs=("image",)).image
                assert image is not None
                return image[0]

            shift = shift_by_colors(views, picture, np.arange(min(_COMPARED_VIEWS, len(K))))
        return replace(self, views=views, shift=shift)

    @property
    def unseen(self) -> Bool[np.ndarray, " V"]:
        """See `interface.Avatar.unseen`."""
        return np.zeros(0, dtype=bool) if self.views is None else unseen_views(self.views)

    def draw(
        self,
        K: Float[np.ndarray, "B 3 3"],
        world_to_camera: Float[np.ndarray, "B 4 4"],
        width: int,
        height: int,
        shading: str = "unlit",
        background: Iterable[float | int] = (1.0, 1.0, 1.0),
        supersample: int = 2,
        light_rotation: Float[np.ndarray, "3 3"] | None = None,
        outputs: Iterable[str] = OUTPUTS,
    ) -> RenderedViews:
        """See `interface.Avatar.draw`; on the CPU."""
        wanted = set(outputs)
        looks = (K, world_to_camera, width, height, shading, background, supersample, light_rotation)
        if self.views is None or not {"depth", "normal"} & wanted:
            return self._draw(*looks, outputs)
        known = [self.views.find(K[b], world_to_camera[b], height, width) for b in range(len(K))]
        rows = [k for k in known if k is not None]
        if len(rows) < len(known):
            drawn = self._draw(*looks, wanted | {"depth", "normal"})
        else:
            drawn = self._draw(*looks, wanted - {"depth", "normal"})
            drawn.depth, drawn.normal = self.views.depth[rows], self.views.normal[rows]
        depth, normal = drawn.depth, drawn.normal
        assert depth is not None and normal is not None
        drawn.noise = np.zeros_like(depth)
        for b in range(len(K)):
            found = settled_depth(self.views, depth[b], normal[b], K[b], world_to_camera[b])
            depth[b] = moved_out(found.depth, normal[b], K[b], world_to_camera[b], self.shift)
            drawn.noise[b] = found.noise
        drawn.depth = depth if "depth" in wanted else None
        drawn.normal = normal if "normal" in wanted else None
        return drawn

    def _draw(
        self,
        K: Float[np.ndarray, "B 3 3"],
        world_to_camera: Float[np.ndarray, "B 4 4"],
        width: int,
        height: int,
        shading: str = "unlit",
        background: Iterable[float | int] = (1.0, 1.0, 1.0),
        supersample: int = 2,
        light_rotation: Float[np.ndarray, "3 3"] | None = None,
        outputs: Iterable[str] = OUTPUTS,
    ) -> RenderedViews:
        """Each view by itself.

        Splats come with their own filter: there is nothing to supersample, but small pictures with one sample a pixel
        are for a quick look, and fewer splats will do.
        """
        if shading not in SHADINGS:
            raise ValueError(f"shading {shading!r} is not one of {SHADINGS}")
        wanted = tuple(outputs)
        if supersample == 1 and max(width, height) <= _QUICK_SIZE and shading == "unlit" and wanted == ("image",):
            return quick_pictures(self._quick, K, world_to_camera, width, height, background)
        relit = None
        if shading != "unlit" and "image" in wanted:
            lights = lights_in_world(world_to_camera, light_rotation)
            eyes = np.linalg.inv(np.asarray(world_to_camera, dtype=np.float64))[:, :3, 3]

            def relit(
                view: int, colors: Float[np.ndarray, "M 3"], rows: Int[np.ndarray, " M"]
            ) -> Float[np.ndarray, "M 3"]:
                toward = eyes[view] - self.splats.means[rows]
                toward /= np.linalg.norm(toward, axis=1, keepdims=True)
                normals = self.outside.normals[rows]
                # a far side seen from inside, through gaps between splats: bright, or it would speck the skin
                away = np.einsum("nc,nc->n", normals, toward) < _AWAY
                light = light_on(
                    np.where(away[:, None], toward, normals), lights[view], occlusion_left(self.outside.open_sky[rows])
                )[:, None]
                return np.minimum((colors if shading == "lit" else CLAY_GREY) * light, 1.0) * np.ones(3)

        return draw_splats(self.scene, K, world_to_camera, width, height, background, wanted, relit=relit)

    def seen_surface(self, points: Float[np.ndarray, "M 3"], head_from_world: Float[np.ndarray, "4 4"]) -> None:
        """None: it has no surface but what pictures show."""
        return None
