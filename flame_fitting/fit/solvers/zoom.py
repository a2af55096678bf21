"""The focal length of a camera that is not known, as an unknown of first-order stages.

A longer focal length shows nearly the same with the head farther away, so a step of the one alone is nearly undone by a
step of the other, and both creep. Here the head moves back along the camera's axis as the focal length grows (a dolly
zoom), which leaves it where it is in the picture: what is left of a step is its perspective.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.parameters import FitParameters, place
from flame_fitting.fit.views import ViewSet
from flame_fitting.head.rotations import rotation_matrix


@dataclass(frozen=True, eq=False)
class Zoom:
    """Beside cameras that stay as they are at the start: what another focal length moves and shows."""

    start: Float[Tensor, "1"]
    """Logarithm of the focal length of the cameras as they are."""
    centre: Float[Tensor, "3"]
    """Of the camera, reference frame, m."""
    axis: Float[Tensor, "3"]
    """It looks along it, reference frame."""
    back: Float[Tensor, "T 3"]
    """Of each timestep, in the unit of `translation`: from the camera to the head along the axis."""

    @classmethod
    def of(cls, parameters: FitParameters, views: ViewSet) -> "Zoom | None":
        """None where not all views are of one camera that stands still: no single depth belongs to each head then.

        A head's depth is that of the reference frame's origin, moved as the timestep moves.
        """
        cameras = views.camera
        if not len(cameras) or np.abs(cameras - cameras[0]).max() > 1e-6:
            return None
        like = parameters.translation
        camera = torch.as_tensor(cameras[0]).to(like)
        axis, centre = camera[2, :3], -camera[:3, :3].T @ camera[:3, 3]
        placement = parameters.placement
        depth = (place(placement, parameters.translation) - centre) @ axis
        back = depth[:, None] * (rotation_matrix(placement[:3]).T @ axis) / placement[6].exp()
        return cls(parameters.log_focal.detach().clone(), centre, axis, back.detach())

    def farther(self, log_focal: Float[Tensor, "1"]) -> Float[Tensor, "T 3"]:
        """What `translation` gets on top for a focal length."""
        return self.back * ((log_focal - self.start).exp() - 1)

    def seen(self, vertices: Float[Tensor, "T V 3"], log_focal: Float[Tensor, "1"]) -> Float[Tensor, "T V 3"]:
        """Where the cameras as they are see what those of another focal length see at vertices (reference frame, m).

        Stretched across the axis: f' x / z = f (f' / f x) / z.
        """
        apart = vertices - self.centre
        across = apart - (apart @ self.axis)[..., None] * self.axis
        return vertices + ((log_focal - self.start).exp() - 1) * across
