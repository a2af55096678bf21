"""Every solver keeps to one gauge: placement carries one timestep, rotation and translation carry several."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting import progress
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers import second_order
from flame_fitting.fit.solvers.adam_settings import learning_rates
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.stage_config import PipelineConfig
from flame_fitting.fit.state import FitState
from tests.fit.known_truth import sequence


@pytest.mark.parametrize("name", ["lmk_init_all", "geo_init_all"])
@pytest.mark.parametrize("timesteps", [1, 3])
def test_second_order_stages(timesteps: int, name: str, tmp_path: Path) -> None:
    head, _, targets, surface = sequence(timesteps)
    start = FitState(FitParameters.neutral(head, timesteps), np.eye(4))
    settings = getattr(PipelineConfig(), name)
    with progress.silent(), progress.Bar(settings.num_steps, name, "step") as shown:
        stage = Stage(name, settings, FitConfig(tmp_path))
        state = second_order.solve(start, Observations(head, targets, surface), stage, shown)
    found = state.parameters
    still, moving = (found.placement[:6], (found.rotation, found.translation))
    if timesteps == 1:
        assert (still != 0).all() and all((value == 0).all() for value in moving)
    else:
        assert (still == 0).all() and all((value != 0).all() for value in moving)
    assert found.placement[6] != 0
    # what did not move is not said to be known
    sigma = state.uncertainty
    assert (np.isnan(sigma["placement"][:6]) == (timesteps > 1)).all() and sigma["placement"][6] > 0
    assert ("rotation" in sigma) == ("translation" in sigma) == (timesteps > 1)
    for key in ("shape", "expr", "neck_pose", "jaw_pose", "eyes_pose"):
        assert sigma[key].shape == getattr(found, key).shape and (sigma[key] > 0).all()


def test_first_order_stages(tmp_path: Path) -> None:
    config = FitConfig(tmp_path)
    stage = config.pipeline.rgb_init_all
    shared = {"placement_scale", "shape", "expr", "neck_pose", "jaw_pose", "eyes_pose"}
    static = dict(learning_rates(config, stage, False))
    assert static.keys() == shared | {"placement_rotation", "placement_translation"}
    moving = dict(learning_rates(config, stage, True))
    assert moving.keys() == shared | {"rotation", "translation"}
    lr = config.lr
    assert (static["placement_rotation"], moving["translation"]) == (lr.rotation, lr.translation)
    assert (static["neck_pose"], static["expr"], static["placement_scale"]) == (lr.neck, lr.expr, lr.scale)
    config.neutral, config.lr.neck = True, None
    rates = dict(learning_rates(config, stage, False))
    assert "jaw_pose" not in rates and rates["neck_pose"] == lr.base
