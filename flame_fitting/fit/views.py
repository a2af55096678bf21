"""The pictures a fit looks at, loaded once, with their cameras in the reference frame."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flame_fitting.capture.camera import clip_from_world, move_camera
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import replace_background, to_uint8
from flame_fitting.errors import InputError


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

    def subset(self, index: list[int] | np.ndarray) -> "ViewSet":
        """Some of the views."""
        chosen = [int(i) for i in index]
        rows = torch.as_tensor(chosen, device=self.rgba.device)
        return replace(
            self,
            views=[self.views[i] for i in chosen],
            rgba=self.rgba[rows],
            clip=self.clip[rows],
            K=self.K[chosen],
            camera=self.camera[chosen],
            timestep=self.timestep[rows],
        )

    def facing(self, max_yaw: float) -> "ViewSet":
        """The views at most that far (degrees) around the head from its front; all where none is."""
        eyes = self.eyes
        yaw = np.degrees(np.arctan2(eyes[:, 0], eyes[:, 2]))
        front = np.flatnonzero(np.abs(yaw) <= max_yaw)
        return self.subset(front) if 0 < len(front) < len(yaw) else self

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


def scaled_intrinsics(K: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """K (..., 3, 3) of a picture that was brought from one size (H, W) to another."""
    return np.diag([new[1] / old[1], new[0] / old[0], 1.0]) @ K


def stack_rgba(images: np.ndarray, alphas: np.ndarray) -> Tensor:
    """(B, H, W, 4) uint8 of images (B, 3, H, W) and alphas (B, H, W), 0..1."""
    both = np.concatenate([np.asarray(images).transpose(0, 2, 3, 1), np.asarray(alphas)[..., None]], axis=-1)
    return torch.as_tensor(to_uint8(both))


def load_views(
    capture: Capture,
    views: list[View],
    reference_from_world: np.ndarray,
    device: torch.device | str = "cpu",
    background: str | None = None,
) -> ViewSet:
    """Reads pictures and alpha maps; cameras become metric and see the reference frame.

    Views of several sizes are brought to the one that most of them have (the larger one where two are as frequent).
    `background` (white or black) goes behind the avatar by its alpha in place of the capture's own.
    """
    camera = np.stack([move_camera(view.world_to_camera, reference_from_world) for view in views])
    size = common_size(views)
    K = np.stack([scaled_intrinsics(view.K, (view.height, view.width), size) for view in views])
    distance = np.linalg.norm(np.linalg.inv(camera)[:, :3, 3], axis=1)
    near, far = np.maximum(distance - 0.6, 0.05), distance + 0.8
    clip = np.stack(
        [
            clip_from_world(view.K, c, view.width, view.height, n, f)
            for view, c, n, f in zip(views, camera, near, far, strict=True)
        ]
    )
    rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}

    composited = all(view.mask_path is not None for view in views)
    behind = np.array(capture.background_color, dtype=np.float32)
    if background is not None and not composited:
        raise InputError(f"{capture.root}: has no alpha maps, so its background cannot be made {background}.")
    wanted = behind if background is None else np.full(3, float(background == "white"), dtype=np.float32)

    def read(view: View) -> Tensor:
        image, alpha = capture.image(view), capture.alpha(view)
        image, _ = replace_background(image, alpha, behind, wanted)
        rgba = stack_rgba(image[None], alpha[None])[0]
        if rgba.shape[:2] != size:
            rgba = torch.as_tensor(to_uint8(area_resized(rgba.float() / 255, size).numpy()))
        return rgba.to(device)

    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(read, views))
    return ViewSet(
        views=list(views),
        rgba=torch.stack(pictures),
        clip=torch.as_tensor(clip, dtype=torch.float32).to(device),
        K=K,
        camera=camera,
        timestep=torch.tensor([rows[view.timestep] for view in views], device=device),
        background=torch.as_tensor(wanted, device=device) if composited else None,
    )


def common_size(views: list[View]) -> tuple[int, int]:
    """(H, W) that most of the views have; the largest of those that are as frequent."""
    count = Counter((view.height, view.width) for view in views)
    return max(count, key=lambda size: (count[size], size[0] * size[1], size))
