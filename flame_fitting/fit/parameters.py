"""What the fit optimises, for T timesteps, and how it becomes vertices.

Gauge: the head moves in the *reference frame*, which is head space as first estimated: `reference_from_world` is fixed
at the start and maps the avatar to about metric head space. `placement` is the small similarity that remains; in the
end it is folded into `head_from_world`. For a static avatar it carries all placement, and `rotation` and `translation`
stay zero; over time these two carry the motion.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix

POSES = ("rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose")


@dataclass
class FitParameters:
    """One fit's parameters; all tensors share a dtype and a device."""

    placement: Float[Tensor, "7"]
    """Axis-angle (3, rad), translation (3, m) and log scale: reference frame from head space."""
    shape: Float[Tensor, " S"]
    expr: Float[Tensor, "T E"]
    rotation: Float[Tensor, "T 3"]
    translation: Float[Tensor, "T 3"]
    neck_pose: Float[Tensor, "T 3"]
    jaw_pose: Float[Tensor, "T 3"]
    eyes_pose: Float[Tensor, "T 6"]
    static_offset: Float[Tensor, "1 V 3"]

    @classmethod
    def neutral(cls, head: HeadModel, timesteps: int = 1, dtype: torch.dtype = torch.float64) -> "FitParameters":
        """The template, placed by the identity."""

        def zeros(*size: int) -> Tensor:
            return torch.zeros(*size, dtype=dtype, device=head.v_template.device)

        return cls(
            placement=zeros(7),
            shape=zeros(head.n_shape),
            expr=zeros(timesteps, head.n_expr),
            rotation=zeros(timesteps, 3),
            translation=zeros(timesteps, 3),
            neck_pose=zeros(timesteps, 3),
            jaw_pose=zeros(timesteps, 3),
            eyes_pose=zeros(timesteps, 6),
            static_offset=zeros(1, head.n_vertices, 3),
        )

    def items(self) -> dict[str, Tensor]:
        """Name to tensor."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def clone(self) -> "FitParameters":
        """A detached copy."""
        return replace(self, **{name: value.detach().clone() for name, value in self.items().items()})

    def to(self, *args: object, **options: object) -> "FitParameters":
        """All tensors moved or cast as `Tensor.to` does."""
        return replace(self, **{name: value.to(*args, **options) for name, value in self.items().items()})  # type: ignore[call-overload]

    @property
    def timesteps(self) -> int:
        """T."""
        return self.expr.shape[0]

    def head_vertices(self, head: HeadModel) -> Float[Tensor, "T V 3"]:
        """Posed vertices in head space, metres."""
        rest = {name: value for name, value in self.items().items() if name != "placement"}
        return head(**rest).vertices

    def vertices(self, head: HeadModel) -> Float[Tensor, "T V 3"]:
        """Posed vertices in the reference frame, metres."""
        return place(self.placement, self.head_vertices(head))


def place(placement: Float[Tensor, "7"], points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Applies the similarity `placement` to points."""
    return placement[6].exp() * points @ rotation_matrix(placement[:3]).T + placement[3:6]


def placement_matrix(placement: Float[Tensor, "7"]) -> np.ndarray:
    """`placement` as a 4x4 similarity."""
    out = np.eye(4)
    out[:3, :3] = (placement[6].exp() * rotation_matrix(placement[:3])).detach().cpu().numpy()
    out[:3, 3] = placement[3:6].detach().cpu().numpy()
    return out
