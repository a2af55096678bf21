"""The pictures a fit looks at, loaded once, with their cameras in the reference frame."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flame_fitting.capture.camera import clip_from_world, move_camera
from flame_fitting.capture.capture import Capture, View


@dataclass(eq=False)
class ViewSet:
    """B views of one size."""

    views: list[View]
    images: Tensor
    """(B, 3, H, W) sRGB 0..1."""
    alphas: Tensor
    """(B, H, W)."""
    clip: Tensor
    """(B, 4, 4) clip space from the reference frame."""
    K: np.ndarray
    """(B, 3, 3) px."""
    camera: np.ndarray
    """(B, 4, 4) camera from the reference frame, m."""
    timestep: Tensor
    """(B,) row of the parameters that each view shows."""

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W)."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def eyes(self) -> np.ndarray:
        """(B, 3) camera centres."""
        return np.linalg.inv(self.camera)[:, :3, 3]

    def subset(self, index: list[int] | np.ndarray) -> "ViewSet":
        """Some of the views."""
        chosen = [int(i) for i in index]
        return ViewSet(
            [self.views[i] for i in chosen],
            self.images[chosen],
            self.alphas[chosen],
            self.clip[chosen],
            self.K[chosen],
            self.camera[chosen],
            self.timestep[chosen],
        )

    def downsampled(self, factor: int) -> "ViewSet":
        """Area-averaged by a whole factor that divides the size."""
        if factor == 1:
            return self
        K = self.K.copy()
        K[:, :2] /= factor
        pool = torch.nn.functional.avg_pool2d
        return ViewSet(
            self.views,
            pool(self.images, factor),
            pool(self.alphas[:, None], factor)[:, 0],
            self.clip,
            K,
            self.camera,
            self.timestep,
        )


def load_views(
    capture: Capture, views: list[View], reference_from_world: np.ndarray, device: torch.device | str = "cpu"
) -> ViewSet:
    """Reads pictures and alpha maps; cameras become metric and see the reference frame."""
    camera = np.stack([move_camera(view.world_to_camera, reference_from_world) for view in views])
    K = np.stack([view.K for view in views])
    distance = np.linalg.norm(np.linalg.inv(camera)[:, :3, 3], axis=1)
    near, far = np.maximum(distance - 0.6, 0.05), distance + 0.8
    clip = np.stack(
        [
            clip_from_world(view.K, c, view.width, view.height, n, f)
            for view, c, n, f in zip(views, camera, near, far, strict=True)
        ]
    )
    rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    return ViewSet(
        views=list(views),
        images=torch.as_tensor(np.stack([capture.image(view) for view in views])).to(device),
        alphas=torch.as_tensor(np.stack([capture.alpha(view) for view in views])).to(device),
        clip=torch.as_tensor(clip, dtype=torch.float32).to(device),
        K=K,
        camera=camera,
        timestep=torch.tensor([rows[view.timestep] for view in views]),
    )
