"""Views with their pixels, as a step looks at them, with their cameras in the reference frame."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flame_fitting.capture.camera import scaled_intrinsics
from flame_fitting.capture.capture import View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.render.mesh import zoomed_clip


@dataclass(eq=False)
class ViewSet:
    """B views of one size. Pictures stay on the device as they were read, four bytes a pixel."""

    views: list[View]
    rgba: Tensor
    """(B, H, W, 4) sRGB and alpha: uint8, or float of any precision in 0..1."""
    clip: Tensor
    """(B, 4, 4) clip space from the reference frame, float32."""
    K: np.ndarray
    """(B, 3, 3) px."""
    camera: np.ndarray
    """(B, 4, 4) camera from the reference frame, m."""
    timestep: Tensor
    """(B,) row of the parameters that each view shows."""
    background: Tensor | None = None
    """(3,) sRGB 0..1 that the pictures were composited on by their alpha; None where it is not known."""

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W)."""
        return self.rgba.shape[1], self.rgba.shape[2]

    @property
    def eyes(self) -> np.ndarray:
        """(B, 3) camera centres."""
        return np.linalg.inv(self.camera)[:, :3, 3]

    def pictures(self, index: int | slice | Tensor | None = None) -> Tensor:
        """(b, H, W, 4) float32 sRGB and alpha, 0..1, of some or all views; (H, W, 4) of a single one."""
        chosen = self.rgba if index is None else self.rgba[index]
        return chosen.float().mul_(1 / 255) if chosen.dtype == torch.uint8 else chosen.float()

    @property
    def images(self) -> Tensor:
        """(B, 3, H, W) float32 sRGB 0..1."""
        return self.pictures()[..., :3].permute(0, 3, 1, 2)

    @property
    def alphas(self) -> Tensor:
        """(B, H, W) float32."""
        return self.pictures()[..., 3]

    @property
    def yaw(self) -> np.ndarray:
        """(B,) degrees that each camera stands around the head from its front, 0 to 180."""
        eyes = self.eyes
        return np.abs(np.degrees(np.arctan2(eyes[:, 0], eyes[:, 2])))

    def subset(self, index: list[int] | np.ndarray) -> "ViewSet":
        """Some of the views."""
        chosen = [int(i) for i in index]
        return self.of_rows(chosen, self.rgba[torch.as_tensor(chosen, dtype=torch.long, device=self.rgba.device)])

    def of_rows(self, rows: Sequence[int], rgba: Tensor) -> "ViewSet":
        """Cameras of some of the views with pixels for them."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.clip.device)
        return replace(
            self,
            views=[self.views[row] for row in rows],
            rgba=rgba,
            clip=self.clip[index],
            K=self.K[list(rows)],
            camera=self.camera[list(rows)],
            timestep=self.timestep[index],
        )

    def zoomed(self, factor: float) -> "ViewSet":
        """The same pictures through cameras with so many times the focal length, principal points centred."""
        K = self.K.copy()
        K[:, [0, 1], [0, 1]] *= factor
        return replace(self, clip=zoomed_clip(self.clip, factor), K=K)

    def downsampled(self, factor: int) -> "ViewSet":
        """Area-averaged to a `factor`-th of the size, rounded to whole pixels; half precision.

        Each picture still shows all that it showed, so `clip` stays as it is, and `K` follows the true ratio of the
        sizes: 800 px become 267 px by a factor of 3, and a pixel then covers 2.996 px.
        """
        if factor == 1:
            return self
        height, width = self.resolution
        size = (max(1, round(height / factor)), max(1, round(width / factor)))
        # one view at a time: the float32 pictures of all would be larger than what is kept
        reduced = [area_resized(self.pictures(i), size).half() for i in range(len(self.views))]
        return replace(self, rgba=torch.stack(reduced).contiguous(), K=scaled_intrinsics(self.K, (height, width), size))


def area_resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture (H, W, C), float32, at another size (h, w): the mean of what a pixel covers, linear where it is grown.

    Both have the same borders, so a point at x px comes to lie at x w / W px exactly.
    """
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    if height % size[0] == 0 and width % size[1] == 0:
        kernel = (height // size[0], width // size[1])
        return torch.nn.functional.avg_pool2d(picture.permute(2, 0, 1), kernel).permute(1, 2, 0)
    import cv2

    method = cv2.INTER_AREA if size[0] <= height and size[1] <= width else cv2.INTER_LINEAR
    found = cv2.resize(picture.cpu().numpy(), size[::-1], interpolation=method)
    return torch.as_tensor(found.reshape(*size, -1), device=picture.device)


def stack_rgba(images: np.ndarray, alphas: np.ndarray) -> Tensor:
    """(B, H, W, 4) uint8 of images (B, 3, H, W) and alphas (B, H, W), 0..1."""
    both = np.concatenate([np.asarray(images).transpose(0, 2, 3, 1), np.asarray(alphas)[..., None]], axis=-1)
    return torch.as_tensor(to_uint8(both))


def common_size(views: Sequence[View]) -> tuple[int, int]:
    """(H, W) that most of the views have; the largest of those that are as frequent."""
    count = Counter((view.height, view.width) for view in views)
    return max(count, key=lambda size: (count[size], size[0] * size[1], size))
