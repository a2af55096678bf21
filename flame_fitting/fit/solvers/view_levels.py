"""The pictures of a photometric stage: by size, by the base that they share, with the backgrounds that it wants."""

import torch
from torch import Tensor

from flame_fitting.errors import InputError
from flame_fitting.fit.backgrounds import contour_colors, far_colors, outline_targets, recomposite
from flame_fitting.fit.solvers.changing import Changing, within
from flame_fitting.fit.solvers.photometric_settings import PhotometricConfig, PhotometricWeights
from flame_fitting.fit.solvers.view_order import ViewOrder
from flame_fitting.fit.views import ViewSet


class ViewLevels:
    """B views coarse to fine, in groups that share a base, and which of them a step looks at."""

    def __init__(
        self,
        views: ViewSet,
        config: PhotometricConfig,
        weights: PhotometricWeights,
        generator: torch.Generator,
        only: int | None = None,
    ) -> None:
        """`only` one of the levels is made, where no other one will be looked at."""
        self._config, self._weights, self._generator = config, weights, generator
        count = len(views.views)
        self.groups = [slice(0, count)]
        """Rows of the views that share a base."""
        if config.across_views and count > 1:
            views = views.subset([*range(0, count, 2), *range(1, count, 2)])
            self.groups = [slice(0, (count + 1) // 2), slice((count + 1) // 2, count)]
        factors = config.downsample if config.pictures else (1,)
        made = [only in (None, level) for level in range(len(factors))]
        self.levels = [views.downsampled(n) if done else views for n, done in zip(factors, made, strict=True)]
        self._order = ViewOrder(count, generator)
        self._far: Tensor | None = None
        self._shown = torch.zeros(len(self.levels), dtype=torch.long)
        """Number of the far colour behind the avatar, by level."""
        self._surplus: dict[int, float] = {}
        self.wanted: list[Tensor] = []
        if config.pictures:
            both = zip(self.levels, made, strict=True)
            self.wanted = [self._background(level) if done else level.rgba for level, done in both]
        """(B, H, W, 4) of each level, as the losses see them: see `_background`."""

    def of_others(self, views: ViewSet, level: int) -> "ViewLevels":
        """The same of other views, for one level alone; what is drawn at random goes on."""
        return ViewLevels(views, self._config, self._weights, self._generator, level)

    @property
    def count(self) -> int:
        """B."""
        return len(self.levels[0].views)

    @property
    def camera(self) -> Tensor:
        """(B, 4, 4) camera from the reference frame."""
        return torch.as_tensor(self.levels[0].camera, dtype=torch.float32, device=self.levels[0].clip.device)

    def others(self, group: int) -> list[int]:
        """Rows of the views that are not in a group."""
        return [row for row in range(self.count) if not self._in(row, group)]

    def parts(self, level: int) -> list[tuple[slice, int]]:
        """All views in chunks as equal as memory allows, each with the number of its base."""
        most = min(self._most(level), max(self._config.views_per_step, 1))
        out = []
        for group, rows in enumerate(self.groups):
            count = rows.stop - rows.start
            size = -(-count // -(-count // most))
            starts = range(rows.start, rows.stop, size)
            out += [(slice(start, min(start + size, rows.stop)), group) for start in starts]
        return out

    def choose(self, level: int) -> list[tuple[Tensor, int]] | None:
        """Rows of the views of a step by group, None for all; see `ViewOrder`."""
        wanted = self._config.views_per_step
        if wanted >= self.count:
            return None
        rows = self._order.draw(wanted)
        by_group = [[row for row in rows if self._in(row, group)] for group in range(len(self.groups))]
        device = self.levels[level].clip.device
        chosen = ((torch.tensor(rows, device=device), group) for group, rows in enumerate(by_group) if rows)
        return [(part, group) for rows, group in chosen for part in rows.split(self._most(level))]

    def draw_background(self, level: int) -> None:
        """Another of the far colours behind the avatar, where the stage has such a background."""
        if self._far is None:
            return
        self._shown[level] = torch.randint(len(self._far), (), generator=self._generator)
        self.redraw_background(level)

    def redraw_background(self, level: int) -> None:
        """The far colour that was drawn last, where the stage has such a background."""
        if self._far is None:
            return
        views = self.levels[level]
        assert views.background is not None
        recomposite(views.rgba, views.background, self._far[int(self._shown[level])], self.wanted[level])

    def surplus(self, level: int) -> float:
        """By how much a picture's alpha exceeds 1 in the fourth channel of `wanted`, summed over pixels; waits once."""
        if level not in self._surplus:
            alpha = self.wanted[level][..., 3]
            above = (alpha.float() - 1).clamp_min_(0).sum() if alpha.is_floating_point() else torch.zeros(())
            self._surplus[level] = float(above) / len(alpha)
        return self._surplus[level]

    def changing(self) -> Changing:
        """What steps write; pictures follow from it by `redraw_background`."""
        return {"generator": self._generator, "shown": self._shown, **within("order", self._order.changing())}

    def _background(self, views: ViewSet) -> Tensor:
        """The pictures with their backgrounds replaced, and in the fourth channel what the silhouette term wants."""
        weights, config = self._weights, self._config
        known = views.background is not None
        if not known and config.background in ("white", "black"):
            raise InputError(
                f"--render.background_train {config.background}: the pictures have no alpha and no known background. "
                "Use --render.background_train target."
            )
        as_it_is = config.background == "target" or not known
        inside = weights.silhouette_inside if weights.silhouette and known else 0.0
        if as_it_is and not inside:
            return views.rgba
        out = torch.empty(views.rgba.shape, dtype=torch.float16, device=views.rgba.device)
        alpha = views.alphas
        if inside:
            band = max(1, round(config.outline_band * views.resolution[0]))
            out[..., 3] = outline_targets(alpha, band, inside / weights.silhouette)
        else:
            out[..., 3] = alpha
        if as_it_is:
            out[..., :3] = views.pictures()[..., :3]
            return out
        assert views.background is not None
        plain = {"white": 1.0, "black": 0.0}.get(config.background)
        if plain is not None:
            recomposite(views.rgba, views.background, torch.full_like(views.background, plain), out)
            return out
        if self._far is None:
            self._far = far_colors(contour_colors(views.rgba), 4)
        recomposite(views.rgba, views.background, self._far[0], out)
        return out

    def _in(self, row: int, group: int) -> bool:
        return self.groups[group].start <= row < self.groups[group].stop

    def _most(self, level: int) -> int:
        """Views that may be drawn at once."""
        height, width = self.levels[level].resolution
        return max(1, self._config.pixels_per_chunk // (height * width))
