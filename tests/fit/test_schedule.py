"""Which stages run under which switches."""

from dataclasses import replace
from pathlib import Path

import pytest

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.presets import PRESETS, preset
from flame_fitting.fit.schedule import effective_pipeline
from flame_fitting.fit.track_config import track_preset

VHAP_STAGES = [
    "lmk_init_rigid",
    "lmk_init_all",
    "rgb_init_texture",
    "rgb_init_all",
    "rgb_init_offset",
    "rgb_sequential_tracking",
    "rgb_global_tracking",
]


def names(config: FitConfig, has_geometry: bool = True) -> list[str]:
    return [name for name, _ in effective_pipeline(config, has_geometry)]


def given(name: str) -> FitConfig:
    return preset(name, Path("capture"))


def test_static_takes_its_offsets_from_the_geometry_where_there_is_one() -> None:
    config = given("static")
    common = ["lmk_init_rigid", "lmk_init_all"]
    pictures = ["rgb_init_texture", "rgb_init_all"]
    assert names(config) == [*common, "geo_init_all", *pictures, "geo_init_offset"]
    by_pictures = ["rgb_init_texture", "rgb_init_outline", "rgb_init_offset"]
    assert names(config, has_geometry=False) == [*common, *by_pictures]
    config.data.use_geometry = False
    assert names(config) == names(config, has_geometry=False)


def test_vhap_runs_vhaps_stages_with_geometry_or_without() -> None:
    assert names(given("vhap")) == VHAP_STAGES
    assert names(given("vhap"), has_geometry=False) == VHAP_STAGES


def test_vhap_without_pictures_tracks_landmarks() -> None:
    config = given("vhap")
    config.exp.photometric = False
    assert names(config) == ["lmk_init_rigid", "lmk_init_all", "lmk_sequential_tracking", "lmk_global_tracking"]


def test_static_without_pictures_keeps_the_bake_and_the_registration() -> None:
    config = given("static")
    config.exp.photometric = False
    assert names(config) == ["lmk_init_rigid", "lmk_init_all", "geo_init_all", "rgb_init_texture", "geo_init_offset"]
    assert "rgb_init_offset" not in names(config, has_geometry=False)


@pytest.mark.parametrize("name", PRESETS)
def test_begin_stage_leaves_out_all_before_it(name: str) -> None:
    config = given(name)
    everything = names(config)
    for number, stage in enumerate(everything):
        config.begin_stage = stage
        assert names(config) == everything[number:]


def test_a_stage_without_steps_does_not_run() -> None:
    config = given("static")
    config.pipeline.rgb_init_all.num_steps = 0
    assert "rgb_init_all" not in names(config)
    config.pipeline.rgb_init_all.num_epochs = 2
    assert "rgb_init_all" in names(config)


def test_without_static_offsets_hair_is_followed_nowhere() -> None:
    config = given("vhap")
    config.model.use_static_offset = False
    stages = dict(effective_pipeline(config, has_geometry=False))
    assert "rgb_init_offset" not in stages
    for name, stage in stages.items():
        assert not {"static_offset", "dynamic_offset"} & set(stage.optimizable_params)
        assert ("hair" in stage.align_texture_except) == ("hair" in stage.align_boundary_except) == (name[:3] == "rgb")
    config.model.use_dynamic_offset = True
    tracking = dict(effective_pipeline(config, has_geometry=False))["rgb_sequential_tracking"]
    assert "dynamic_offset" in tracking.optimizable_params
    assert tracking.align_texture_except == ("boundary",)


def test_occluded_regions_join_both_lists_once_and_the_options_stay() -> None:
    config = given("vhap")
    config.model.occluded = ("neck", "boundary", "neck_lower")
    stages = dict(effective_pipeline(config, has_geometry=False))
    assert stages["rgb_init_all"].align_texture_except == ("hair", "boundary", "neck", "neck_lower")
    assert stages["rgb_init_all"].align_boundary_except == ("hair", "bottomline", "neck", "boundary", "neck_lower")
    assert stages["lmk_init_all"].align_boundary_except == ()
    assert config.pipeline.rgb_init_all.align_texture_except == ("hair", "boundary", "neck")
    assert "static_offset" in stages["rgb_init_offset"].optimizable_params


def test_a_name_means_nothing() -> None:
    """What a stage does, and whether it runs, is in its fields alone."""
    config = given("static")
    pictures, offsets = config.pipeline.rgb_init_outline, config.pipeline.rgb_init_offset
    config.pipeline.rgb_init_outline = replace(offsets, num_steps=7)
    config.pipeline.rgb_init_offset = replace(pictures, num_steps=8)
    config.model.use_static_offset = False
    stages = dict(effective_pipeline(config, has_geometry=False))
    assert "rgb_init_outline" not in stages and stages["rgb_init_offset"].num_steps == 8
    config.pipeline.rgb_init_offset = replace(config.pipeline.rgb_init_offset, looks_at=("landmarks",))
    config.exp.photometric = False
    assert "rgb_init_offset" in dict(effective_pipeline(config, has_geometry=False))


def test_epochs_beyond_keyframes_need_more_timesteps_than_a_batch() -> None:
    config = track_preset("track", Path("capture"), monocular=False)
    assert "rgb_init_offset" in dict(effective_pipeline(config, False, timesteps=16))
    for timesteps, runs in ((16, False), (17, True)):
        assert ("rgb_global_tracking" in dict(effective_pipeline(config, False, timesteps=timesteps))) == runs
    # one camera has no stage of keyframes
    video = dict(effective_pipeline(track_preset("track", Path("capture"), monocular=True), False, timesteps=2))
    assert "rgb_global_tracking" in video and "rgb_init_offset" not in video
