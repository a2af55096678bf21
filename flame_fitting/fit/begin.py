"""Where a fit begins: the scale that flags, the file's format or the face itself decide on, and the start at it."""

from collections.abc import Sequence

from flame_fitting import progress
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.similarity import decompose_similarity
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.landmark_sources import LandmarkSource
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.prepare import Start, neutral_parameters, start_from_capture
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.scale import Scale, asked_for, chosen_by, named_unit
from flame_fitting.fit.solvers import second_order
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.stage_config import PipelineConfig
from flame_fitting.fit.state import FitState
from flame_fitting.head.model import HeadModel

_MOMENTS = 3
"""Of one person that tell the scale: it is the same in all."""


def begin(
    config: FitConfig,
    capture: Capture,
    sources: Sequence[LandmarkSource],
    head: HeadModel,
    surface: SurfaceWeights,
    known: Scale | None = None,
) -> tuple[Scale, Start]:
    """The scale of a fit and its start. `head` is in double precision; `known` is the scale that was settled before.

    With `--scale auto` the second-order stages with a free scale say what the face alone suggests; where that is near a
    common unit, the fit begins anew with the scale of that unit held.
    """
    file_format = capture.avatar.format
    said = named_unit(capture.unit, str(capture.sources[0] if capture.sources else capture.root))
    scale = known or asked_for(config.scale, config.unit, file_format, said)

    def choose(start: Start) -> float | None:
        nonlocal scale
        scale = chosen_by(scale_by_face(config, head, start, surface, capture.moments), file_format)
        return scale.metres_per_unit

    start = start_from_capture(
        head,
        capture,
        sources,
        None if scale is None else scale.metres_per_unit,
        config.data.use_geometry,
        choose if scale is None else None,
    )
    assert scale is not None
    progress.say(scale.sentence)
    return scale, start


def scale_by_face(
    config: FitConfig, head: HeadModel, start: Start, surface: SurfaceWeights, moments: Sequence[str] = ()
) -> float:
    """Metres per unit by landmarks and surface under the priors of shape and scale; of many moments by the first few.

    The stages are the defaults' whatever the preset, with all components: a shape of few leaves part of itself to the
    scale (with 30 of the open head's 120 components up to 12 % of it).
    """
    targets = start.targets[:_MOMENTS] if moments else start.targets
    state = FitState(neutral_parameters(head, len(targets)), start.reference_from_world)
    seen = Observations(head, targets, surface, of_sequence=bool(moments), moments=tuple(moments[: len(targets)]))
    stages, names = PipelineConfig(), ["lmk_init_all"]
    if start.targets[0].surface is not None:
        names.append("geo_init_all")
    for name in names:
        stage = Stage(name, getattr(stages, name), config)
        with progress.Bar(stage.settings.num_steps, "scale", "step") as shown:
            state = second_order.solve(state, seen, stage, shown)
    return decompose_similarity(state.head_from_world)[0]
