"""What the driver says of a face that is not at rest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame_fitting import progress
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import SOLVERS, run_stage
from flame_fitting.fit.not_at_rest import in_a_line
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.stage_config import StageConfig
from flame_fitting.fit.state import FitState
from flame_fitting.report.tables import metrics_table
from tests.fit.known_truth import problem


@pytest.mark.parametrize("neutral", [False, True])
def test_what_is_not_at_rest_is_said_once_and_warned_of_where_it_may_not_move(neutral, monkeypatch) -> None:
    head, _, targets, surface = problem()
    state = FitState(FitParameters.neutral(head), np.diag([0.01, 0.01, 0.01, 1.0]))
    seen = Observations(head, targets, surface)
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    monkeypatch.setitem(SOLVERS, "gauss_newton", lambda state, *_: replace(state, active=("left eye shut by 90 %",)))
    config = FitConfig(Path("toy"), neutral=neutral)
    for _ in range(2):
        state = run_stage(state, seen, Stage("toy", StageConfig(1, solver="gauss_newton"), config))
    told = list(state.warnings) if neutral else said
    assert len(told) == 1 and "left eye shut by 90 %" in told[0]
    assert ("--neutral" in told[0]) == neutral and len(state.warnings) == int(neutral)


def test_moments_stand_apart_from_what_each_lists() -> None:
    both = ("smile: left eye shut by 90 %, mouth open by 5 mm", "pout: mouthPucker 0.9")
    assert in_a_line(both, several=True) == "; ".join(both)
    assert in_a_line(("left eye shut by 90 %", "mouth open by 5 mm"), several=False).count(", ") == 1
    many = in_a_line([f"m{number}: jawOpen 1.0, smile 0.5" for number in range(60)], several=True)
    assert many.endswith("; and 52 more") and many.count("; ") == 8
    table = metrics_table({"not_at_rest": list(both), "moments": {}})
    assert "; ".join(both) in table
