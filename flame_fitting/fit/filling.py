"""What no picture shows of a texture: the head's own painted texture, matched in colour to what pictures show.

Gains (ratios of linear colours) are known at the vertices around seen texels. Over the rest of the surface they are a
screened membrane (Perez et al., "Poisson image editing", 2003; Bhat et al., "GradientShop", 2010): they run on smoothly
from what is seen nearby, and towards what is usual of the tissue far from there. The membrane spans the mesh, not the
texture, so it knows nothing of charts and their seams.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.capture.color_correction import linear_to_srgb, srgb_to_linear
from flame_fitting.fit.texture import painted, resized
from flame_fitting.fit.tissues import NUMBER, TISSUES, tissue_of_faces
from flame_fitting.head.mesh_graph import MeshGraph
from flame_fitting.head.model import HeadModel
from flame_fitting.render.texturing import TexelMap

_DARK = 2e-3
"""Added to linear colours before their ratios are taken: black has no gain."""
_ENOUGH = 12
"""Vertices that tell what is usual of a tissue."""
_UNLIKE = 0.6
"""Logarithm of a gain off what is usual of its tissue by which it counts for a quarter."""
_LASHES = 0.85
"""Of the skin's own painted colour: the least that hidden lids have, whose painted lashes lie on the rim."""
_LEAST_OF_EYE = 0.04
"""Share of an eyeball's texels below which what is seen of it is not used."""
_ODD = 0.13
"""Mean difference (sRGB) between what is seen of an eye and the painted one that is too much for one picture."""
_MOUTH = (0.36, 0.12, 0.12)
"""sRGB of the inside of a mouth of which nothing is painted."""


@dataclass(frozen=True, eq=False)
class Match:
    """How the painted texture becomes one of the person who is seen."""

    gain: Float[ndarray, "V 3"]
    """Logarithm of what linear colours are multiplied by."""
    usual: dict[str, Float[ndarray, " 3"]]
    """The same of every tissue as a whole."""


def matched(
    head: HeadModel,
    texels: TexelMap,
    color: Float[ndarray, "R R 3"],
    weight: Float[ndarray, "R R"],
    base: Float[ndarray, "R R 3"],
) -> Match:
    """The gains that take `base` to the seen colours; both sRGB 0..1, `weight` 0..1 says how well a texel is seen."""
    rows, cols = np.nonzero(texels.covered.cpu().numpy() & (weight > 0))
    face = texels.face.cpu().numpy()[rows, cols]
    faces = head.faces.cpu().numpy()
    tissue = tissue_of_faces(head)
    vertex_tissue = _of_vertices(faces, tissue, head.n_vertices)
    shares = texels.barycentric.cpu().numpy()[rows, cols] * weight[rows, cols][:, None]
    # a vertex is told of by texels of its own tissue alone: lips say nothing of the mouth, lids nothing of eyes
    shares = shares * (vertex_tissue[faces[face]] == tissue[face][:, None])
    # brows and moles are painted where this person may have none
    light = base[rows, cols].mean(-1)
    skin = tissue[face] == NUMBER["skin"]
    if skin.any():
        shares = shares * ~(skin & (light < 0.75 * np.median(light[skin])))[:, None]
    index = faces[face].reshape(-1)
    known = np.bincount(index, shares.reshape(-1), head.n_vertices)
    sums = []
    for picture in (color, base):
        linear = srgb_to_linear(picture[rows, cols]) + _DARK
        sums.append(
            np.stack(
                [np.bincount(index, (shares * linear[:, k : k + 1]).reshape(-1), head.n_vertices) for k in range(3)], 1
            )
        )
    ratio = np.log(np.maximum(sums[0], 1e-12) / np.maximum(sums[1], 1e-12))
    ratio = np.where(known[:, None] > 1.0, ratio, 0.0)
    usual = _usual(head, ratio, known, vertex_tissue)
    constant = np.stack([usual[name] for name in TISSUES])[vertex_tissue]
    return Match(_membrane(head, ratio, known, constant, vertex_tissue), usual)


def _of_vertices(faces: Int[ndarray, "F 3"], tissue: Int[ndarray, " F"], count: int) -> Int[ndarray, " V"]:
    """The tissue that most triangles around a vertex have."""
    votes = np.zeros((count, len(TISSUES)))
    np.add.at(votes, (faces.reshape(-1), np.repeat(tissue, 3)), 1)
    return votes.argmax(1)


def _usual(
    head: HeadModel, ratio: Float[ndarray, "V 3"], known: Float[ndarray, " V"], tissue: Int[ndarray, " V"]
) -> dict[str, Float[ndarray, " 3"]]:
    """Logarithmic gains of each tissue as a whole: of its own seen vertices, else of what the skin tells."""
    seen = known > 1.0
    face = head.region_mask("face").cpu().numpy() & (tissue == NUMBER["skin"]) & seen

    def median(mask: ndarray) -> ndarray | None:
        return np.median(ratio[mask], axis=0) if mask.sum() >= _ENOUGH else None

    skin = median(face)
    if skin is None:
        skin = median(seen & (tissue == NUMBER["skin"]))
    if skin is None:
        skin = np.zeros(3)
    hair = median(seen & (tissue == NUMBER["hair"]))
    # light and exposure, not the skin's own tone: of that the inside of a mouth has little, eyes have none
    grey = np.full(3, np.clip(skin.mean(), -1.2, 0.4))
    out = {"skin": skin, "hair": skin if hair is None else hair, "mouth": 0.5 * grey, "teeth": 0.3 * grey}
    # shadows of lids and lashes darken the white of an eye, white that shows beside an iris brightens that
    for name, brighter, range_, tint in (("sclera", 0.9, (-0.25, 0.2), 0.08), ("iris", 0.2, (-1.8, 0.7), 0.8)):
        out[name] = 0.3 * grey
        own = ratio[seen & (tissue == NUMBER[name])]
        if len(own) >= _ENOUGH:
            mean = np.quantile(own.mean(1), brighter)
            near = own[np.argsort(np.abs(own.mean(1) - mean))[: max(len(own) // 3, 3)]]
            hue = np.median(near - near.mean(1, keepdims=True), axis=0)
            out[name] = np.clip(mean, *range_) + np.clip(hue, -tint, tint)
    return out


def _membrane(
    head: HeadModel,
    ratio: Float[ndarray, "V 3"],
    known: Float[ndarray, " V"],
    usual: Float[ndarray, "V 3"],
    tissue: Int[ndarray, " V"],
) -> Float[ndarray, "V 3"]:
    """The smoothest gains over the mesh that keep what is known and, beyond a tissue's reach, are what is usual."""
    from scipy.sparse import coo_matrix, diags
    from scipy.sparse.linalg import spsolve

    vertices, count = head.v_template.detach().double().cpu().numpy(), head.n_vertices
    a, b = MeshGraph(head.faces.cpu().numpy(), count).edges.T
    length = np.maximum(np.linalg.norm(vertices[a] - vertices[b], axis=1), 1e-5)
    joined = tissue[a] == tissue[b]
    # lips run on into the mouth; hair says nothing of the skin beside it
    lips = {NUMBER["skin"], NUMBER["mouth"]}
    into = np.isin(tissue[a], list(lips)) & np.isin(tissue[b], list(lips))
    pull = np.where(joined, 1.0, np.where(into, 0.3, 0.0)) / length**2
    graph = coo_matrix((np.r_[pull, pull], (np.r_[a, b], np.r_[b, a])), shape=(count, count)).tocsr()
    degree = np.asarray(graph.sum(1))[:, 0]
    reach = np.array([one.reach for one in TISSUES.values()])[tissue]
    screen = 1 / reach**2
    data = 20.0 * np.maximum(degree, 1.0) * np.clip(known / 20.0, 0, 1) * (known > 1.0)
    # what little is unlike the rest of its tissue (a strand, a collar's edge) does not run on far
    data /= (1 + (np.abs(ratio - usual).max(1) / _UNLIKE) ** 2) ** 2
    data[np.isin(tissue, (NUMBER["sclera"], NUMBER["iris"]))] = 0.0  # their white and their iris have one colour each
    system = (diags(degree + screen + data) - graph).tocsc()
    return np.asarray(spsolve(system, screen[:, None] * usual + data[:, None] * ratio))


def painted_base(head: HeadModel, texels: TexelMap) -> Float[ndarray, "R R 3"]:
    """The head's own texture (sRGB 0..1) at the texels; where it has none, one colour by region."""
    base = painted(head, texels).cpu().numpy().astype(np.float32)
    if head.texture is None:
        inside = (tissue_of_faces(head) == NUMBER["mouth"])[texels.face.clamp_min(0).cpu().numpy()]
        base[inside] = _MOUTH
    return base


def filled(
    head: HeadModel,
    texels: TexelMap,
    color: Float[ndarray, "R R 3"],
    weight: Float[ndarray, "R R"],
    coarse: TexelMap,
) -> Float[ndarray, "R R 3"]:
    """The texture `color` (sRGB 0..1) where it is seen (`weight` 1), the matched painted one where it is not (0).

    Gains are found on the `coarse` texels of the same head.
    """
    size = coarse.face.shape[0]
    small, seen = (
        resized(torch.as_tensor(np.ascontiguousarray(picture)).float(), size).numpy()
        for picture in (color * weight[..., None], np.repeat(weight[..., None], 3, axis=2))
    )
    sure = cv2.erode((seen[..., 0] > 0.9).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float64)
    match = matched(head, coarse, small / np.maximum(seen, 1e-6), sure, painted_base(head, coarse))
    filler = _recoloured(head, texels, match)
    weight = np.where(_odd_eyes(head, texels, color, weight, filler), 0.0, weight)
    out = weight[..., None] * color + (1 - weight[..., None]) * filler
    return out.astype(np.float32)


def _recoloured(head: HeadModel, texels: TexelMap, match: Match) -> Float[ndarray, "R R 3"]:
    """The painted texture with the gains of a match."""
    gain = texels.interpolate(torch.as_tensor(match.gain).float(), head.faces.cpu()).numpy()
    base = srgb_to_linear(painted_base(head, texels)).astype(np.float32)
    face = texels.face.cpu().numpy()
    plain = head.face_mask("face").cpu().numpy()[np.maximum(face, 0)] & (face >= 0)
    if plain.any():
        lids = head.face_mask("eyelids").cpu().numpy()[np.maximum(face, 0)] & (face >= 0)
        base[lids] = np.maximum(base[lids], _LASHES * np.median(base[plain], axis=0))
    return linear_to_srgb(np.clip((base + _DARK) * np.exp(gain) - _DARK, 0.0, 1.0))


def _odd_eyes(
    head: HeadModel,
    texels: TexelMap,
    color: Float[ndarray, "R R 3"],
    weight: Float[ndarray, "R R"],
    filler: Float[ndarray, "R R 3"],
) -> Bool[ndarray, "R R"]:
    """Texels of both eyeballs where what is seen of one does not go on in the painted one: lids, an iris elsewhere."""
    out, odd = np.zeros(weight.shape, dtype=bool), False
    face = texels.face.cpu().numpy()
    for name in ("left_eyeball", "right_eyeball"):
        eye = head.face_mask(name).cpu().numpy()[np.maximum(face, 0)] & (face >= 0)
        out |= eye
        seen = eye & (weight > 0.5)
        if not seen.any():
            continue
        apart = np.abs(color[seen] - filler[seen]).mean(-1)
        if seen.sum() < _LEAST_OF_EYE * eye.sum() or apart.mean() > _ODD:
            odd = True
    return out if odd else np.zeros_like(out)
