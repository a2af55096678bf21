"""The first steps of a fit, once and roughly, to find the head frame in which a capture's views are planned.

Detected points move when the view turns by half a degree, so views planned from a file's axes would make the result
depend on how the file was turned. The frame of a fitted surface does not.
"""

from collections.abc import Iterable

import numpy as np

from flame_fitting.fit.landmark_sources import PlacedLandmarks
from flame_fitting.fit.parameters import placement_matrix
from flame_fitting.fit.prepare import make_start, neutral_parameters
from flame_fitting.fit.region_weights import SurfaceWeights, surface_weights
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.solvers.problem import GaussNewtonSettings
from flame_fitting.fit.solvers.residuals import LANDMARK_CUT
from flame_fitting.fit.surface import SurfaceView
from flame_fitting.fit.weight_config import PriorConfig, WeightConfig
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.lifting import Landmarks3D


def rough_head_frame(
    head: HeadModel,
    embedding: LandmarkEmbedding,
    landmarks: Landmarks3D,
    surface: Iterable[SurfaceView],
    iterations: int = 15,
) -> np.ndarray:
    """head_from_world (4, 4) of a fit with few components to probe renders. `head` is in double precision."""
    start = make_start(head, [PlacedLandmarks(embedding, [landmarks])], [list(surface)], spacing=0.002)
    parameters = neutral_parameters(head, 1)
    few = Columns.of(head, ("placement", "shape", "expr", "jaw_pose"), {"shape": 30, "expr": 10})
    weights = surface_weights(head, {"neck": 0.0, "scalp": 0.1, "hair": 0.1})
    steps: tuple[tuple[int, SurfaceWeights | None], ...] = ((10, None), (iterations, weights))
    weight = WeightConfig()
    for count, dense in steps:
        settings = GaussNewtonSettings(
            evidence=0.0,
            moments=(),
            usual_log_focal=0.0,
            size_sigma=None,
            iterations=count,
            landmark_count=weight.landmark_count,
            landmark_cut=LANDMARK_CUT,
            surface_count=weight.surface_count,
            smoothness={},
            steadied=False,
            bias_sigma=None,
            marginal=0,
            volume=0.0,
            seed=0,
        )
        parameters = gauss_newton(head, parameters, start.targets, few, PriorConfig(), settings, dense).parameters
    return np.linalg.inv(placement_matrix(parameters.placement)) @ start.reference_from_world
