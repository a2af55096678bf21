"""What of the head hair or clothes cover, by the colours that the pictures have there."""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flame_fitting.head.model import HeadModel
from flame_fitting.render.texturing import TexelMap

MAY_BE_COVERED = ("scalp", "hair", "forehead", "ears", "neck", "boundary")
"""Regions."""
_SKIN = ("nose", "left_cheek", "right_cheek")
"""Regions whose colour is taken for the skin's."""
_OTHER = 14.0
"""Colours are another than the skin's so far from its median, at least: CIELAB, lightness halved, since shading is in
it."""
_SPREAD = 2.0
"""And so many times as far as four fifths of the skin."""
_RINGS = 2
"""Rings of triangles around it that hair hangs over, as seen from beside."""


def covered_vertices(head: HeadModel, texture: Float[Tensor, "R R 3"], texels: TexelMap) -> Bool[Tensor, " V"]:
    """Vertices of the head where the baked `texture` (sRGB) is not coloured as the skin of nose and cheeks.

    None are of a head that is all of one colour, or whose skin is as varied as all the rest.
    """
    count = len(head.faces)
    none = torch.zeros(head.n_vertices, dtype=torch.bool)
    skin, may = head.face_mask(*_SKIN).cpu(), head.face_mask(*MAY_BE_COVERED).cpu()
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
    found = votes > 0.5 * of
    faces = head.faces.cpu()
    for _ in range(_RINGS):
        found[faces[found[faces].any(1)]] = True
    return found
