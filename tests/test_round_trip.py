"""A dataset that was exported is fitted again: its parameters are begun with, and its pictures have the last word."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.assets import shipped_embedding_path
from flame_fitting.capture.camera import project, transform_points
from flame_fitting.capture.opening import open_capture
from flame_fitting.cli import main
from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.earlier import earlier_state
from flame_fitting.fit.presets import preset
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.sources import open_fit_and_head
from flame_fitting.fit_avatar import fit
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.embedding_schemes import for_scheme
from flame_fitting.report.truth import Truth, truth_metrics
from tests.export.jobs import exported
from tests.synthetic import known_fit, render_case, similarity
from tests.test_real_avatars import CHARACTER, run_and_check

Case = tuple[HeadModel, FitResult, Path]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The open head with an identity of its own, exported, with landmarks2d/mine.npz in iBUG-68's order."""
    folder, head = tmp_path_factory.mktemp("case"), load_head("open")
    first = known_fit(head, similarity(0.01))
    parameters = first.parameters
    parameters["shape"][6:], parameters["expr"][:], parameters["jaw_pose"][:] = 0.0, 0.0, 0.0
    assert head.texture is not None
    first.texture = head.texture
    capture = render_case(folder, head, first, n_fit=6, n_heldout=2, size=96)
    exported(first, capture, head, folder / "export")
    dataset = open_capture(folder / "export")
    embedding = for_scheme(LandmarkEmbedding.load(shipped_embedding_path("mediapipe", "textured")), "ibug68", head)
    points = embedding.points(torch.as_tensor(first.vertices_head(head)), head.faces)[0].numpy()
    views = [view for view in dataset.views if np.linalg.inv(view.world_to_camera)[2, 3] > 0.3]
    landmarks = np.full((1, len(dataset.camera_ids), 68, 3), np.nan, dtype=np.float32)
    for view in views:
        landmarks[0, view.camera] = project(points, view.K, view.world_to_camera)
        landmarks[0, view.camera, :, 2] = 1.0
    (folder / "export" / "landmarks2d").mkdir()
    np.savez(folder / "export" / "landmarks2d" / "mine.npz", landmarks=landmarks, scheme="ibug68")
    return head, first, folder / "export"


def again(dataset: Path, parameters: Path, output: Path) -> FitResult:
    """Fitted by pictures from parameters on, with few steps."""
    config: FitConfig = preset("static", dataset)
    config.output, config.head, config.device = output, "open", "cpu"
    config.data.landmark_source, config.data.use_landmark = ("mine",), False
    config.model.tex_resolution, config.model.flame_params_path = 128, parameters
    config.begin_stage = "rgb_init_offset"
    stage = config.pipeline.rgb_init_offset
    stage.num_steps, stage.sizes, stage.texture_sizes = 24, (), (128,)
    config.log.overlays = config.log.tensorboard = False
    with progress.silent():
        return fit(config, evaluate=False)


def errors(case: Case, vertices_in_dataset: np.ndarray) -> dict[str, float]:
    """Of the face, mm: vertex to vertex and to the surface, medians."""
    head, first, _ = case
    truth = Truth(first.vertices_head(head)[0], 1000.0)
    found = truth_metrics(head, vertices_in_dataset, truth)["face"]
    return {key: value["median"] for key, value in found.items()}


def in_dataset(head: HeadModel, result: FitResult) -> np.ndarray:
    return transform_points(np.linalg.inv(result.head_from_world), result.vertices_head(head)[0])


def test_begun_with_its_own_parameters_it_is_the_same_head(case: Case, tmp_path: Path) -> None:
    head, _, dataset = case
    found = errors(case, in_dataset(head, again(dataset, dataset, tmp_path / "fit")))
    assert found["to_truth_mm"] < 0.5 and found["to_truth_surface_mm"] < 0.2


def test_wrong_parameters_are_mended_by_the_pictures(case: Case, tmp_path: Path) -> None:
    """Parameters are begun with, not passed through."""
    head, _, dataset = case
    with np.load(dataset / "flame_param" / "00000.npz") as file:
        arrays = dict(file)
    arrays["shape"][0] += 1.5
    np.savez(tmp_path / "wrong.npz", **arrays)
    start = earlier_state(tmp_path / "wrong.npz", head.double(), 1)
    before = errors(case, start.vertices_world(head)[0])
    head.float()
    after = errors(case, in_dataset(head, again(dataset, tmp_path / "wrong.npz", tmp_path / "fit")))
    assert before["to_truth_surface_mm"] > 1.0
    assert after["to_truth_surface_mm"] < 0.5 * before["to_truth_surface_mm"]


def test_parameters_of_another_head_model_are_refused(case: Case, tmp_path: Path) -> None:
    head, _, dataset = case
    data = json.loads((dataset / "transforms.json").read_text())
    data["provenance"]["head_model"]["sha256"] = "another"
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    (tmp_path / "flame_param").mkdir()
    with pytest.raises(InputError, match="another head model"):
        earlier_state(tmp_path, head, 1)
    data["provenance"] = None
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="no such file"):
        earlier_state(tmp_path, head, 1)


@pytest.mark.slow
def test_a_real_avatars_dataset_gives_its_head_again(test_data: Path, tmp_path: Path) -> None:
    """With hair and clothes: what the pictures show of the face, by pictures alone and begun with the parameters."""
    avatar = test_data / "avatars" / CHARACTER
    run_and_check(avatar, tmp_path / "out", "--no-photometric")
    dataset = tmp_path / "out" / "export"
    first, head = open_fit_and_head(tmp_path / "out" / "fit")
    truth, bare = Truth(first.vertices_head(head)[0], 1000.0), ("nose", "lips", "chin")
    steps = ("--pipeline.rgb-init-offset.num-steps", "100", "--log.no-overlays")
    begun: tuple[str, ...] = (
        "--model.flame-params-path",
        str(dataset),
        "--begin-stage",
        "rgb_init_offset",
        "--data.no-use-landmark",
    )
    begun += ("--pipeline.rgb-init-offset.lr-scale", "0.3")
    for options, vertex, surface in (((), 5.0, 0.6), (begun, 1.5, 0.4)):
        output = tmp_path / f"again{len(options)}"
        assert main(["fit", str(dataset), "--output", str(output), *steps, *options]) == 0
        found, _ = open_fit_and_head(output)
        errors = truth_metrics(head, in_dataset(head, found), truth)
        for region in bare:
            assert errors[region]["to_truth_mm"]["median"] < vertex, (options, region)
            assert errors[region]["to_truth_surface_mm"]["median"] < surface, (options, region)
