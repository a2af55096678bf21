"""What of the head hair or clothes cover, by the colours that the pictures have there."""

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.head.model import HeadModel
from flame_fitting.render.texturing import TexelMap

HAIR = ("scalp", "hair", "forehead", "ears")
"""Regions that hair may cover."""
CLOTHES = ("neck", "boundary")
"""Regions that clothes may cover."""
_OF_CLOTHES = 0.7
"""How far what clothes cover counts as covered: next to nothing but a collar tells where a neck is."""
_SKIN = ("nose", "left_cheek", "right_cheek")
"""Regions whose colour is taken for the skin's."""
_OTHER = 14.0
"""Colours are another than the skin's so far from its median, at least: CIELAB, lightness halved, since shading is in
it."""
_SPREAD = 2.0
"""And so many times as far as four fifths of the skin."""
_RINGS = 2
"""Rings of triangles around hair that it hangs over, as seen from beside."""


def covered_vertices(head: HeadModel, texture: Float[Tensor, "R R 3"], texels: TexelMap) -> Float[Tensor, " V"]:
    """How far each vertex is covered, 0..1: where the baked `texture` (sRGB) is not coloured as nose and cheeks.

    Nowhere on a head that is all of one colour, or whose skin is as varied as all the rest.
    """
    count = len(head.faces)
    none = torch.zeros(head.n_vertices)
    skin, may = head.face_mask(*_SKIN).cpu(), head.face_mask(*HAIR, *CLOTHES).cpu()
    if not skin.any() or not may.any():
        return none
    seen = texels.covered.cpu()
    face = texels.face.cpu()[seen].long()
    color = torch.zeros(count, 3).index_add_(0, face, texture.cpu().float()[seen])
    texel_count = torch.bincount(face, minlength=count)
    color = (color / texel_count.clamp_min(1)[:, None]).clamp(0, 1)
    lab = cv2.cvtColor(color.numpy()[None], cv2.COLOR_RGB2LAB)[0]
    known = (texel_count > 0).numpy()
    of_skin = lab[skin.numpy() & known]
    if not len(of_skin):
        return none
    apart = np.linalg.norm((lab - np.median(of_skin, 0)) * [0.5, 1.0, 1.0], axis=1)
    limit = max(_OTHER, _SPREAD * float(np.quantile(apart[skin.numpy() & known], 0.8)))
    other = torch.as_tensor((apart > limit) & known) & may
    votes = torch.zeros(head.n_vertices).index_add_(0, head.faces.cpu().reshape(-1), other.float().repeat_interleave(3))
    of = torch.bincount(head.faces.cpu().reshape(-1), minlength=head.n_vertices).clamp_min(1)
    found, clothed = votes > 0.5 * of, head.region_mask(*CLOTHES).cpu()
    hair, faces = found & ~clothed, head.faces.cpu()
    for _ in range(_RINGS):
        hair[faces[hair[faces].any(1)]] = True
    return torch.where(hair & ~clothed, 1.0, _OF_CLOTHES * found.float())
