"""How large the head is: what a camera that is not known cannot tell.

A head twice as large and twice as far away looks the same, so pictures leave its size to the priors. Those of
expressions, biases and steps are in metres: the smaller the head, the weaker the expressions that move it as far, and
the joint mode of all takes what a hundred timesteps save there for evidence (Neyman and Scott 1948). It shrank heads by
a third, and took the focal length along. So of cameras that are not known the size is nearly held, at the model's mean.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.head.model import HeadModel


def size_slopes(head: HeadModel, components: int) -> Float[Tensor, " n"]:
    """How the logarithm of the face's size changes with each of the first identity coefficients, at the mean head.

    The size is the root mean square of the distances of the face's vertices from their centre.
    """
    face = head.region_mask("face")
    points = head.v_template[face]
    centred = points - points.mean(0)
    moved = head.shapedirs[face][..., :components]
    return torch.einsum("vc,vcn->n", centred, moved - moved.mean(0)) / centred.square().sum()
