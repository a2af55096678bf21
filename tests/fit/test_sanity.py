"""What is counted on a fitted head, and the watch over a running stage."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.errors import InputError
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import CAP, by_region
from flame_fitting.fit.sanity import (
    RegionSanity,
    Watch,
    as_metrics,
    nothing_drawn_error,
    region_sanity,
    sanity_warnings,
)
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel

SOUND = RegionSanity(
    triangles=200,
    flipped=0,
    crossing=30,
    crossing_without_offsets=30,
    crossing_template=30,
    crossing_new=5,
    vertices=100,
    at_cap=0,
    offset_mm_max=3.0,
)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open").double()


def check_sanity(head: HeadModel, parameters: FitParameters) -> dict[str, RegionSanity]:
    with torch.no_grad():
        bare = replace(parameters, static_offset=torch.zeros_like(parameters.static_offset))
        posed, without = (p.head_vertices(head).numpy() for p in (parameters, bare))
    return region_sanity(head, posed, without, parameters.static_offset.numpy())


def with_offset(head: HeadModel, offset: torch.Tensor, timesteps: int = 1) -> FitParameters:
    return replace(FitParameters.neutral(head, timesteps), static_offset=offset[None])


def test_repaired_triangles_are_counted_by_region(head: HeadModel) -> None:
    posed = FitParameters.neutral(head).head_vertices(head).numpy()
    lips, neck = (np.flatnonzero(head.face_mask(name).numpy()) for name in ("lips", "neck"))
    found = region_sanity(
        head, posed, posed, np.zeros((1, head.n_vertices, 3)), smoothed=[*lips[:3].tolist(), int(neck[0])]
    )
    assert found["lips"].smoothed == 3 and found["neck"].smoothed == 1
    assert found["ears"].smoothed == 0 and as_metrics(found)["lips"]["smoothed"] == 3


def test_the_template_is_sound_as_it_comes(head: HeadModel) -> None:
    found = check_sanity(head, FitParameters.neutral(head))
    assert {"face", "nose", "lips", "eyelids", "ears", "neck", "scalp"} == set(found)
    for region in found.values():
        assert region.crossing == region.crossing_without_offsets == region.crossing_template
        assert region.flipped == region.crossing_new == region.at_cap == region.offset_mm_max == 0
        assert region.triangles > 200 and region.vertices > 100
    assert sanity_warnings(found) == []


def test_lips_that_the_expression_closes_too_far_are_not_the_offsets_fault(head: HeadModel) -> None:
    parameters = FitParameters.neutral(head)
    parameters.jaw_pose[0, 0] = -0.06  # the lower lip goes up into the upper one
    lips = check_sanity(head, parameters)["lips"]
    assert lips.crossing == lips.crossing_without_offsets > 20 and lips.crossing_new == 0
    assert lips.crossing_template < 5


def test_a_lid_that_offsets_push_into_the_eyeball_counts(head: HeadModel) -> None:
    template = head.v_template
    ball, lid = template[head.regions["left_eyeball"]].mean(0), head.regions["left_eyelid"]
    upper = lid[template[lid, 1] > ball[1]]
    offset = torch.zeros_like(template)
    offset[upper] = 0.004 * torch.nn.functional.normalize(ball - template[upper], dim=-1)
    found = check_sanity(head, with_offset(head, offset))
    lids = found["eyelids"]
    assert lids.crossing_without_offsets == lids.crossing_template == 0
    assert lids.crossing == lids.crossing_new > 20
    assert lids.offset_mm_max == pytest.approx(4.0) and found["neck"].offset_mm_max == 0
    assert found["ears"].crossing == found["scalp"].crossing == 0
    assert "of the eyelids (0 without offsets)" in " ".join(sanity_warnings({"eyelids": replace(lids, triangles=100)}))


def test_vertices_at_their_cap_and_triangles_turned_over(head: HeadModel) -> None:
    caps = by_region(head, CAP, 0.02)
    chosen = head.regions["neck"][:30]
    offset = torch.zeros_like(head.v_template)
    offset[chosen, 1] = caps[chosen]
    offset[head.regions["neck"][30:40], 1] = 0.98 * caps[head.regions["neck"][30:40]]
    # results are stored in single precision
    stored = with_offset(head, offset.float().double())
    found = check_sanity(head, stored)
    assert found["neck"].at_cap == 30 and found["nose"].at_cap == 0
    assert found["neck"].flipped > 5 and found["nose"].flipped == 0
    assert found["neck"].offset_mm_max == pytest.approx(1000 * float(caps[chosen].max()), rel=1e-6)


def test_over_time_the_worst_counts(head: HeadModel) -> None:
    template = head.v_template
    ball, lid = template[head.regions["left_eyeball"]].mean(0), head.regions["left_eyelid"]
    offset = torch.zeros_like(template)
    offset[lid] = 0.002 * torch.nn.functional.normalize(ball - template[lid], dim=-1)
    parameters = with_offset(head, offset, timesteps=3)
    parameters.rotation[1] = torch.tensor([0.1, 0.2, 0.3])
    still = check_sanity(head, with_offset(head, offset))
    moving = check_sanity(head, parameters)
    assert moving == still, "turning the head changes nothing"
    parameters.jaw_pose[2, 0] = -0.06
    assert check_sanity(head, parameters)["eyelids"].crossing >= still["eyelids"].crossing
    assert check_sanity(head, parameters)["lips"].crossing_new == 0


def test_regions_that_a_model_lacks_are_left_out() -> None:
    from tests.toy import toy_head

    toy = toy_head().double()
    assert set(check_sanity(toy, FitParameters.neutral(toy))) == {"face", "neck", "scalp"}


def test_only_what_offsets_spoil_is_worth_a_warning() -> None:
    assert sanity_warnings({"lips": SOUND}) == []
    assert sanity_warnings({"lips": replace(SOUND, crossing=60)}) == [
        "Static offsets push triangles through each other: 60 of the lips (30 without offsets)."
    ]
    assert "3 of the ears" in sanity_warnings({"ears": replace(SOUND, flipped=3)})[0]
    assert "40 % of the scalp" in sanity_warnings({"scalp": replace(SOUND, at_cap=40)})[0]
    assert sanity_warnings({"face": replace(SOUND, flipped=3)}) == [], "the face has its own warning"
    assert as_metrics({"lips": SOUND})["lips"]["crossing_template"] == 30


def noisy(values: np.ndarray) -> np.ndarray:
    return values * (1 + 0.3 * np.random.default_rng(0).uniform(-1, 1, size=len(values)))


def first_reason(losses: np.ndarray, watch: Watch | None = None) -> tuple[int, str] | None:
    watch = watch or Watch()
    for step, loss in enumerate(losses):
        reason = watch.report(step, float(loss))
        if reason is not None:
            return step, reason
    return None


def test_a_loss_that_falls_or_wavers_is_left_alone() -> None:
    steps = np.arange(200)
    assert first_reason(noisy(np.exp(-steps / 40) + 0.1)) is None
    assert first_reason(noisy(np.ones(200))) is None
    assert first_reason(noisy(1 + steps / 200)) is None, "twice the start is not divergence"
    spike = np.ones(100)
    spike[50] = 80.0
    assert first_reason(spike) is None, "one report is none either"
    assert first_reason(np.zeros(20)) is None


def test_a_loss_that_grows_is_stopped() -> None:
    found = first_reason(noisy(np.exp(np.arange(100) / 15)))
    assert found is not None and 15 < found[0] < 45 and "loss went from" in found[1]
    jumped = first_reason(np.concatenate([np.ones(20), np.full(20, 50.0)]))
    assert jumped is not None and jumped[0] <= 25


def adams_jump(settled: float, steps: int = 50) -> np.ndarray:
    """The loss every 10 steps of a stage that begins at another one's minimum, jumps and comes back to `settled`."""
    return np.interp(np.arange(steps), [0, 1, 2, 3, 5, 8], [2.31, 9.6, 13.6, 19.9, 6.0, settled])


def test_what_adam_does_in_its_first_steps_is_no_divergence() -> None:
    losses = adams_jump(2.0)
    smoothed = np.average(losses[:4], weights=0.8 ** np.arange(3, -1, -1))
    assert losses[0] == 2.31 and smoothed == pytest.approx(12.9, abs=0.05), "by step 30 as the old watch had it"
    assert first_reason(losses, Watch(settle=5)) is None
    # a stage with terms that were 0 where it began stays above that; its own level is what counts
    assert first_reason(adams_jump(9.0), Watch(settle=5)) is None


def test_a_stage_that_goes_on_rising_after_its_start_is_stopped() -> None:
    """Losses every 10 steps as a stage had them whose light was moved along the wrong slopes."""
    losses = np.interp(np.arange(50), [0, 1, 2, 3, 10, 20, 30, 49], [2.6, 8.7, 9.6, 12.0, 60.0, 150.0, 260.0, 460.0])
    found = first_reason(losses, Watch(settle=5))
    assert found is not None and 5 < found[0] < 20 and "loss went from" in found[1]


def test_a_short_stage_is_stopped_too() -> None:
    assert first_reason(np.array([1.0, 4.0, 16.0, 64.0])) is not None
    assert first_reason(np.array([1.0, 1.3, 1.5, 1.6])) is None


def test_what_is_not_finite_is_stopped_at_once_and_stays_the_reason() -> None:
    for value in (np.nan, np.inf):
        found = first_reason(np.array([1.0, 1.0, value, 1.0]))
        assert found == (2, "the loss is no longer finite at step 2")
    watch = Watch()
    assert watch.report(0) is None, "no loss was read"
    reason = watch.report(7, None, finite=False)
    assert reason == "the parameters are no longer finite at step 7"
    assert watch.report(8, 1.0) == watch.reason == reason


def test_an_empty_picture_is_stopped() -> None:
    watch = Watch()
    assert watch.report(0, 1.0, drawn=5) is None
    assert "nothing of the head" in str(watch.report(1, 1.0, drawn=0))


def test_another_size_of_pictures_starts_anew() -> None:
    losses = np.concatenate([np.ones(20), np.full(20, 50.0)])
    watch = Watch()
    assert first_reason(losses[:20], watch) is None
    watch.restart()
    assert first_reason(losses[20:], watch) is None


def test_cameras_that_miss_the_head_are_the_users_to_mend() -> None:
    error = nothing_drawn_error("somewhere/render")
    assert isinstance(error, InputError)
    assert str(error).startswith("somewhere/render: ") and "transforms.json" in str(error)
