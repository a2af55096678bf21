"""Second order with points of the skin that are followed through a video, beside its landmarks.

Landmarks have noise of their own in every picture, and a brow or a jaw that moves by less than it looks as if it stood
still. Points of the skin (`skin_points`) are told to a fraction of a pixel, but by a head that is right to a few: so
they are found anew between rounds of the solver.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from flame_fitting import progress
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.feature_tracks import FeatureTracks, follow
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.skin_points import Shown, SkinPoints, looked_at, on_the_skin
from flame_fitting.fit.solvers import second_order
from flame_fitting.fit.solvers.biases import turn_of, with_noise_found, without_biases
from flame_fitting.fit.solvers.focal import dollied
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.solvers.residuals import LANDMARK_CUT
from flame_fitting.fit.state import FitState
from flame_fitting.fit.steady_points import steady, typical
from flame_fitting.fit.targets import LandmarkTarget, PixelTarget, SourceTarget
from flame_fitting.head.model import HeadModel
from flame_fitting.render.mesh import zoomed_clip

COMPONENTS = {"shape": 100, "expr": 60}
"""Components that points of the skin can tell."""
_ANCHORS, _APART = 24, 8
"""Pictures whose corners are followed: at most so many, so many timesteps apart at least."""
_CORNERS, _POINTS = 100, 500
"""Of each at most, and of all about."""
_LONGER_SIDE = 1024
"""px: larger pictures are reduced."""
_TURN = 3.0
"""Degrees, in the root mean square: heads that turn less show no depth, and so no identity and no focal length."""
_AT_ONCE, _FOLLOWING = 48, 4
"""Pictures that tell identity and focal length at most, and steps of all timesteps after it where there are more."""
_BIAS = (0.01, 0.002)
"""m: along each direction in the skin, of where a point is, and along its normal, of what the surface is off by."""


class Round(NamedTuple):
    """Some steps of the solver."""

    told: bool
    """Whether the points are found anew before."""
    noise: float
    """px at 512: standard deviation of a place that the head does not explain, beside its own."""
    cut: float
    """Geman-McClure scale of points and landmarks, in standard deviations."""
    steady: bool = True
    """Whether unsteady points are left out from here on."""
    marginal: bool = False
    """Whether the steps go to the mode with timesteps integrated out."""


# what a fit is off by at first is no outlier
_BEGUN = (Round(told=True, noise=0.5, cut=10.0, steady=False), Round(told=False, noise=0.5, cut=LANDMARK_CUT))
_POSES = _BEGUN
_IDENTITY = (
    *_BEGUN,
    Round(told=False, noise=0.5, cut=LANDMARK_CUT, steady=False, marginal=True),
    Round(told=True, noise=0.3, cut=LANDMARK_CUT, marginal=True),
)


def solve(state: FitState, seen: Observations, stage: Stage, shown: progress.Bar) -> FitState:
    """All that the stage's groups name, by landmarks, points of the skin and priors.

    Where there is a `hindrance` all is left as it is.
    """
    steps, groups, rows = stage.settings.num_steps, stage.settings.optimizable_params, seen.with_face
    if hindrance(seen, stage.config) is not None:
        shown.advance(steps)
        return state
    if "shape" in groups and (turn := turned_by(seen.head, state.parameters, rows)) < _TURN:
        progress.say(
            f"{stage.name}: the head turns by {turn:.1f} degrees (root mean square), less than {_TURN:.0f}: points of "
            "the skin do not tell its identity and focal length then, and those of its landmarks stay"
        )
        shown.advance(steps)
        return state
    if (bias := stage.config.prior.landmark_bias) is not None:
        seen = replace(seen, targets=with_noise_found(seen.head, state.parameters, seen.targets, bias))
    film = Film.of(seen, rows)
    if "shape" in groups:
        stride = -(-len(rows) // _AT_ONCE)
        if stride > 1:
            found = _identity_by_some(state, film, stride, stage, shown)
        else:
            found = _in_rounds(state, film, _tracked(state, film), stage, _IDENTITY, shown)
    else:
        # where the head is on average the landmarks have told already, together with all that has moved since
        if bias is not None:
            film = replace(
                film, seen=replace(seen, targets=without_biases(seen.head, state.parameters, seen.targets, bias))
            )
        found = _in_rounds(state, film, _tracked(state, film), stage, _POSES, shown)
    return replace(found, texture_is_final=False)


def turned_by(head: HeadModel, parameters: FitParameters, rows: Sequence[int]) -> float:
    """How far the head is turned from its mean over some timesteps, degrees, in the root mean square."""
    from scipy.spatial.transform import Rotation

    turns = torch.stack([turn_of(parameters, row, head.parents) for row in rows])
    found = Rotation.from_matrix(turns.detach().cpu().numpy())
    return float(np.degrees(np.sqrt(np.mean((found.mean().inv() * found).magnitude() ** 2))))


def hindrance(seen: Observations, config: FitConfig) -> str | None:
    """Why points of the skin cannot be followed, in words; None where they can."""
    if seen.pictures is None or seen.rasterizer is None:
        return "there are no pictures to follow them through"
    if len(seen.with_face) < 2:
        return "a single timestep with a face shows no points that move"
    if any(len(seen.pictures.rows([row])) != 1 for row in seen.with_face):
        return "they are followed by one camera, and timesteps have several pictures"
    return None if config.w.landmark_count else "they count beside landmarks, and --w.landmark-count is 0"


def _identity_by_some(state: FitState, film: "Film", stride: int, stage: Stage, shown: progress.Bar) -> FitState:
    """Identity and focal length by every so many pictures; then all timesteps by their landmarks, with both held.

    Points are followed through all pictures, and told in those.
    """
    kept = range(0, len(film.rows), stride)
    rows = [film.rows[number] for number in kept]
    few = film.some(kept)
    tracks = _tracked(state, film, kept)
    prior, longer = stage.config.prior, np.sqrt(stride)
    changes = {name: value * longer for name, value in vars(prior).items() if name.endswith("_change") and value}
    wider = replace(stage, config=replace(stage.config, prior=replace(prior, **changes)))
    steps = stage.settings.num_steps
    first = replace(wider, settings=replace(stage.settings, num_steps=max(steps - _FOLLOWING, 0)))
    begun = replace(state, parameters=state.parameters.of_frames(rows), uncertainty={})
    found = _in_rounds(begun, few, tracks, first, _IDENTITY, shown)
    parameters = dollied(film.seen, state.parameters, float(found.parameters.log_focal[0]))
    parameters = parameters.with_frames(rows, found.parameters)
    moving = tuple(group for group in stage.settings.optimizable_params if group not in ("cam", "shape"))
    rest = replace(
        stage,
        settings=replace(stage.settings, num_steps=min(steps, _FOLLOWING), optimizable_params=moving),
        keeper=None,
    )
    followed = second_order.solve(replace(state, parameters=parameters), film.seen, rest, shown)
    shared = {name: found.uncertainty[name] for name in ("shape", "log_focal") if name in found.uncertainty}
    return replace(followed, uncertainty=state.uncertainty | followed.uncertainty | shared)


def _tracked(state: FitState, film: "Film", kept: range | None = None) -> list[FeatureTracks]:
    """Corners of some pictures followed through all, by their places in those that are `kept`."""
    seen, kept = film.seen, range(len(film.rows)) if kept is None else kept
    assert seen.rasterizer is not None
    apart = max(-(-_APART // kept.step), -(-len(kept) // _ANCHORS))
    chosen = range((apart // 2) % len(kept), len(kept), apart)
    inside = looked_at(seen.rasterizer, seen.head, film.shown(state), [kept[number] for number in chosen])
    tracks = follow(film.grey, inside, min(_CORNERS, _POINTS // len(chosen)))
    return [
        FeatureTracks(kept.index(one.anchor), one.start, one.place[kept.start : kept.stop : kept.step])
        for one in tracks
    ]


def _in_rounds(
    state: FitState,
    film: "Film",
    tracks: list[FeatureTracks],
    stage: Stage,
    rounds: tuple[Round, ...],
    shown: progress.Bar,
) -> FitState:
    """Second order, round by round; each has its part of the stage's steps."""
    seen, steps = film.seen, stage.settings.num_steps
    assert seen.rasterizer is not None
    for number, each in enumerate(rounds):
        if each.told:
            points = on_the_skin(seen.rasterizer, seen.head, film.shown(state), tracks)
        if each.steady:
            points = steady(points, film.shown(state))
        noise = each.noise
        if each.marginal:  # the volume counts by what errors are assumed, and a video's own may be larger
            noise = max(noise, typical(points, film.shown(state)) * 512 / max(film.grey.shape[1:]))
        more = film.with_points(points, stage.config.w.landmark_count, noise / 512)
        own = len(range(number, steps, len(rounds)))
        settings = replace(stage.settings, num_steps=0 if each.marginal else own)
        part = replace(stage, keeper=None, settings=settings, steadied=stage.steadied and number == len(rounds) - 1)
        marginal = own if each.marginal else 0
        found = second_order.solve(state, more, part, shown, COMPONENTS, each.cut, marginal)
        # what does not move here keeps its own
        state = replace(found, uncertainty=state.uncertainty | found.uncertainty)
    return state


@dataclass(frozen=True, eq=False)
class Film:
    """The pictures of the timesteps with a face, through the cameras as they were assumed."""

    seen: Observations
    rows: list[int]
    """Their timesteps."""
    grey: UInt8[ndarray, "T H W"]
    K: Float[ndarray, "T 3 3"]
    """px."""
    camera: Float[ndarray, "T 4 4"]
    """From the reference frame, m."""
    clip: Float[Tensor, "T 4 4"]
    """The same to clip space."""

    @classmethod
    def of(cls, seen: Observations, rows: list[int]) -> "Film":
        """Reads the pictures, of one camera, as grey bytes."""
        assert seen.pictures is not None
        grey, K, camera, clip = [], [], [], []
        for row in rows:
            view = seen.pictures.batch(seen.pictures.rows([row]))
            view = view.downsampled(-(-max(view.resolution) // _LONGER_SIDE))
            grey.append((255 * view.pictures(0)[..., :3].mean(-1)).round().byte().cpu().numpy())
            K.append(view.K[0])
            camera.append(view.camera[0])
            clip.append(view.clip[0])
        return cls(seen, rows, np.stack(grey), np.stack(K), np.stack(camera), torch.stack(clip))

    def some(self, kept: range) -> "Film":
        """Some of the pictures, whose timesteps become the first, second ... one."""
        seen, at = self.seen.of_frames([self.rows[number] for number in kept]), slice(kept.start, kept.stop, kept.step)
        return Film(seen, list(range(len(kept))), self.grey[at], self.K[at], self.camera[at], self.clip[at])

    def shown(self, state: FitState) -> Shown:
        """With the head as a state has it, and its focal length."""
        head, parameters = self.seen.head, state.parameters.of_frames(self.rows)
        factor = 1.0 if self.seen.calibrated else float(parameters.log_focal[0].exp())
        K = self.K.copy()
        K[:, [0, 1], [0, 1]] *= factor
        vertices = parameters.vertices(head).detach()
        camera, clip = torch.as_tensor(self.camera).to(vertices), zoomed_clip(self.clip, factor)
        return Shown(self.grey, torch.as_tensor(K).to(vertices), camera, clip, vertices)

    def with_points(self, points: SkinPoints, count: float, noise: float) -> Observations:
        """The observations with one more source of landmarks.

        `count` is what all of a timestep's others count for, `noise` the standard deviation beside the points' own, of
        the picture's longer side.
        """
        place = {row: number for number, row in enumerate(self.rows)}
        seen, head, like = self.seen, self.seen.head, self.seen.head.v_template
        nowhere = LandmarkTarget(
            like.new_zeros(0, 3),
            like.new_zeros(0),
            like.new_zeros(0),
            head.faces[:0],
            like.new_zeros(0, 3),
            np.zeros(0, int),
        )
        targets = []
        for row, target in enumerate(seen.targets):
            pixels = self._target(points, place[row], noise) if row in place else None
            share = 0.0 if pixels is None else pixels.points / count
            targets.append(
                replace(target, sources=(*target.sources, SourceTarget(nowhere, pixels, share=share, bias=_BIAS)))
            )
        return replace(seen, targets=targets)

    def _target(self, points: SkinPoints, number: int, noise: float) -> PixelTarget | None:
        """The points that one picture shows, each as one measurement."""
        index = torch.nonzero(points.found[number])[:, 0]
        if not len(index):
            return None
        like = points.barycentric
        K, camera = torch.as_tensor(self.K[number]).to(like), torch.as_tensor(self.camera[number]).to(like)
        rays = (points.place[number, index] - K[:2, 2]) / K[[0, 1], [0, 1]]
        # the same at the head's distance: the targets' deviation is one for all
        size = float(max(self.grey.shape[1:]))
        sigma = torch.hypot(2 * points.sigma[number, index], like.new_tensor(noise * size))
        depth = camera[2, 3].clamp_min(0.05)
        weight = (PixelTarget.sigma * K[0, 0] / (sigma * depth)).square()
        return PixelTarget(
            camera=camera[:3].expand(len(index), 3, 4),
            rays=rays,
            weight=weight,
            corners=points.corners[index],
            barycentric=points.barycentric[index],
            view=torch.zeros_like(index),
            index=index,
            points=len(index),
        )
