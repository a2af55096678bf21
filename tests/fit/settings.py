"""What solvers take in tests: the options' values, as `rgb_init_all` of the preset `static` has them.

No test has defaults of its own: it changes what it is about.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from flame_fitting.fit.losses.offsets import OffsetWeights
from flame_fitting.fit.presets import preset
from flame_fitting.fit.priors import priors
from flame_fitting.fit.solvers.adam_settings import photometric_config, photometric_weights
from flame_fitting.fit.solvers.geometry_weights import GeometryWeights
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.solvers.photometric_settings import PhotometricConfig, PhotometricWeights
from flame_fitting.fit.solvers.problem import GaussNewtonSettings
from flame_fitting.fit.solvers.residuals import LANDMARK_CUT
from flame_fitting.fit.views import ViewSet
from flame_fitting.fit.weight_config import PriorConfig

STATIC = preset("static")
ITERATIONS = STATIC.pipeline.geo_init_offset.num_steps
"""Of the registration of offsets."""
_NO_VIEWS = ViewSet(
    views=[],
    rgba=torch.zeros(0, 512, 512, 4, dtype=torch.uint8),
    clip=torch.zeros(0, 4, 4),
    K=np.zeros((0, 3, 3)),
    camera=np.zeros((0, 4, 4)),
    timestep=torch.zeros(0, dtype=torch.long),
)
"""Of pictures of 512 px."""


def settings_of(**changes: Any) -> PhotometricConfig:
    """A photometric stage."""
    stage = Stage("rgb_init_all", STATIC.pipeline.rgb_init_all, STATIC)
    return replace(photometric_config(stage, _NO_VIEWS, torch.device("cpu"), is_sequence=False), **changes)


def weights_of(**changes: Any) -> PhotometricWeights:
    """Its balance."""
    return replace(photometric_weights(STATIC, STATIC.pipeline.rgb_init_all), **changes)


def geometry_of(**changes: Any) -> GeometryWeights:
    """The terms without pictures in it."""
    return replace(weights_of().geometry, **changes)


def offsets_of(**changes: Any) -> OffsetWeights:
    """The regularisers of static offsets in it."""
    return replace(geometry_of().offset, **changes)


def priors_of(**changes: Any) -> PriorConfig:
    """The Gaussian priors."""
    return replace(priors(STATIC), **changes)


def second_order_of(**changes: Any) -> GaussNewtonSettings:
    """Balance and schedule of a second-order stage."""
    counts: dict[str, Any] = {"landmark_count": STATIC.w.landmark_count, "surface_count": STATIC.w.surface_count}
    counts |= {
        "smoothness": {},
        "steadied": False,
        "bias_sigma": None,
        "marginal": 0,
        "volume": 1.0,
        "evidence": 0.0,
        "landmark_cut": LANDMARK_CUT,
        "usual_log_focal": 0.0,
        "size_sigma": None,
        "seed": 0,
    }
    return GaussNewtonSettings(
        **({"moments": (), "iterations": STATIC.pipeline.geo_init_all.num_steps} | counts | changes)
    )
