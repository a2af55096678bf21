"""Second order with points of the skin that are followed through a video, beside its landmarks.

Landmarks have noise of their own in every picture, and a brow or a jaw that moves by less than it looks as if it stood
still. Points of the skin (`skin_points`) are told to a fraction of a pixel, but by a head that is right to a few: so
they are found anew between rounds of the solver.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from flame_fitting import progress
from flame_fitting.fit.feature_tracks import follow
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.skin_points import Shown, SkinPoints, looked_at, on_the_skin
from flame_fitting.fit.solvers import second_order
from flame_fitting.fit.solvers.biases import without_biases
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import LandmarkTarget, PixelTarget, SourceTarget
from flame_fitting.render.mesh import zoomed_clip

COMPONENTS = {"shape": 100, "expr": 60}
"""Components that points of the skin can tell."""
_ANCHORS, _APART = 24, 10
"""Pictures whose corners are followed: at most so many, so many timesteps apart at least."""
_CORNERS = 60
"""Of each."""
_LONGER_SIDE = 1024
"""px: larger pictures are reduced."""
_ROUNDS = 2
"""In each of which the points are found anew."""
_NOISE = 0.5 / 512
"""Standard deviation of a place that the head does not explain, beside its own, of the picture's longer side."""
_SHARE = 0.5
"""Measurements that a point counts for: what the head does not explain is alike at neighbours."""
_BIAS = 0.003
"""m: of what the head's surface is off by at a spot, along each axis."""


def solve(state: FitState, seen: Observations, stage: Stage, shown: progress.Bar) -> FitState:
    """All that the stage's groups name, by landmarks, points of the skin and priors.

    Where timesteps have one picture each; others are left as they are.
    """
    steps, rows = stage.settings.num_steps, seen.with_face
    alone = seen.pictures is not None and len(seen.pictures) == seen.timesteps
    rasterizer = seen.rasterizer
    if not alone or rasterizer is None or len(rows) < 2 or not stage.config.w.landmark_count:
        shown.advance(steps)
        return state
    # where the head is on average the landmarks have told already, together with all that has moved since
    if (bias := stage.config.prior.landmark_bias) is not None:
        seen = replace(seen, targets=without_biases(seen.head, state.parameters, seen.targets, bias))
    film = Film.of(seen, rows)
    apart = max(_APART, -(-len(rows) // _ANCHORS))
    anchors = range((apart // 2) % len(rows), len(rows), apart)
    tracks = follow(film.grey, looked_at(rasterizer, seen.head, film.shown(state), anchors), _CORNERS)
    for number in range(_ROUNDS):
        points = on_the_skin(rasterizer, seen.head, film.shown(state), tracks)
        part = replace(
            stage, keeper=None, settings=replace(stage.settings, num_steps=len(range(number, steps, _ROUNDS)))
        )
        more = film.with_points(points, stage.config.w.landmark_count)
        found = second_order.solve(state, more, part, shown, COMPONENTS)
        # what does not move here keeps its own, the focal length above all
        state = replace(found, uncertainty=state.uncertainty | found.uncertainty)
    return replace(state, texture_is_final=False)


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

    def shown(self, state: FitState) -> Shown:
        """With the head as a state has it, and its focal length."""
        head, parameters = self.seen.head, state.parameters.of_frames(self.rows)
        factor = 1.0 if self.seen.calibrated else float(parameters.log_focal[0].exp())
        K = self.K.copy()
        K[:, [0, 1], [0, 1]] *= factor
        vertices = parameters.vertices(head).detach()
        camera, clip = torch.as_tensor(self.camera).to(vertices), zoomed_clip(self.clip, factor)
        return Shown(self.grey, torch.as_tensor(K).to(vertices), camera, clip, vertices)

    def with_points(self, points: SkinPoints, count: float) -> Observations:
        """The observations with one more source of landmarks; `count` is what all of a timestep's others count for."""
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
            pixels = self._target(points, place[row]) if row in place else None
            share = 0.0 if pixels is None else _SHARE * pixels.points / count
            targets.append(
                replace(target, sources=(*target.sources, SourceTarget(nowhere, pixels, share=share, bias=_BIAS)))
            )
        return replace(seen, targets=targets)

    def _target(self, points: SkinPoints, number: int) -> PixelTarget | None:
        """The points that one picture shows, each as one measurement."""
        index = torch.nonzero(points.found[number])[:, 0]
        if not len(index):
            return None
        like = points.barycentric
        K, camera = torch.as_tensor(self.K[number]).to(like), torch.as_tensor(self.camera[number]).to(like)
        rays = (points.place[number, index] - K[:2, 2]) / K[[0, 1], [0, 1]]
        # the same at the head's distance: the targets' deviation is one for all
        size = float(max(self.grey.shape[1:]))
        sigma = torch.hypot(2 * points.sigma[number, index], like.new_tensor(_NOISE * size))
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
