"""Splats whose surface is what several views say together."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from flame_fitting.avatar.interface import OUTPUTS, RenderedViews
from flame_fitting.avatar.splat_avatar import SplatAvatar
from flame_fitting.avatar.splat_scene import is_solid
from flame_fitting.avatar.view_fusion import DepthViews, moved_out, settled_depth, shift_by_colors, unseen_views

_MOST_SIZE = 512
"""Pictures that tell about the surface are drawn no larger."""
_COMPARED_VIEWS = 12


@dataclass(eq=False)
class SettledSplats(SplatAvatar):
    """See `interface.Avatar.settled`."""

    views: DepthViews = field(kw_only=True)
    shift: float = field(kw_only=True)
    """How far outside their depth the surface lies, world units."""

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
        """See `interface.Avatar.draw`."""
        wanted = set(outputs)
        looks = (K, world_to_camera, width, height, shading, background, supersample, light_rotation)
        if not {"depth", "normal"} & wanted:
            return super().draw(*looks, outputs)
        known = [self.views.find(K[b], world_to_camera[b], height, width) for b in range(len(K))]
        if None in known:
            drawn = super().draw(*looks, wanted | {"depth", "normal"})
        else:
            drawn = super().draw(*looks, wanted - {"depth", "normal"})
            drawn.depth, drawn.normal = self.views.depth[known], self.views.normal[known]
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

    @property
    def unseen(self) -> Bool[np.ndarray, " V"]:
        """Which of the views that it was settled by look at a side that is not there, or that nobody has seen."""
        return unseen_views(self.views)


def settled_splats(
    avatar: SplatAvatar, K: Float[np.ndarray, "V 3 3"], world_to_camera: Float[np.ndarray, "V 4 4"], size: int
) -> SettledSplats:
    """See `interface.Avatar.settled`."""
    smaller = min(size, _MOST_SIZE)
    K = np.diag([smaller / size, smaller / size, 1.0]) @ K
    drawn = avatar.draw(K, world_to_camera, smaller, smaller, outputs=("depth", "normal"))
    assert drawn.depth is not None and drawn.normal is not None
    views, shift = DepthViews(drawn.depth, drawn.normal, K, world_to_camera), 0.0
    if not is_solid(avatar.splats):

        def picture(k: int) -> Float[np.ndarray, "3 H W"]:
            image = avatar.draw(K[k : k + 1], world_to_camera[k : k + 1], smaller, smaller, outputs=("image",)).image
            assert image is not None
            return image[0]

        shift = shift_by_colors(views, picture, np.arange(min(_COMPARED_VIEWS, len(K))))
    return SettledSplats(
        avatar.splats,
        avatar.path,
        avatar.file_hash,
        avatar.format,
        avatar.notes,
        avatar.warnings,
        views=views,
        shift=shift,
    )
