"""The commands: where each lives, and what its help says beside its flags."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Where a command lives and what its help says beside its flags."""

    name: str
    module: str
    config: str
    function: str
    summary: str
    examples: tuple[str, str]
    note: str = ""
    """More than one line about it, shown by its own help only."""
    defaults: str = ""
    """Function of its module that gives what the flags of a command line are laid over."""
    only_shows: bool = False
    """Whether it makes no result, beside which its log would lie."""


STAGES = (
    Stage(
        "run",
        "run_pipeline",
        "RunConfig",
        "run",
        "All of it: an avatar in, a fitted head and a NeRF-style dataset out.",
        ("run A.glb --output output/a", "run smile.glb frown.glb --output output/one_person"),
    ),
    Stage(
        "preprocess",
        "preprocess_video",
        "PreprocessConfig",
        "preprocess",
        "Makes pictures, and alpha maps if asked, of a video or of the videos of a rig.",
        (
            "preprocess --input data/monocular/obama.mp4 --matting-method selfie",
            "preprocess --input data/nersemble/074/EMO-1 --downsample-scales 2 4",
        ),
    ),
    Stage(
        "render",
        "render_avatar",
        "RenderConfig",
        "render",
        "Finds the face of an avatar and renders a capture: pictures, alpha, depth, normals, cameras.",
        (
            "render A.glb --output O/render",
            "render A.stl --output O/render --shading clay --views 64 --resolution 1024",
        ),
    ),
    Stage(
        "detect",
        "detect_landmarks",
        "DetectConfig",
        "detect",
        "Detects face landmarks in the pictures of a capture.",
        ("detect O/render", "detect O/render --model-path face_landmarker.task"),
    ),
    Stage(
        "fit",
        "fit_avatar",
        "FitConfig",
        "fit",
        "Fits the head model to a capture: shape, expression, pose, offsets, texture.",
        ("fit O/render --output O/fit", "fit A/render B/render --same-identity --output O/fit"),
        "Every day: --expressive, --no-photometric (faster), --no-use-static-offset (smoother),\n"
        "--preset fast or high, --head, --unit cm.\n\n"
        "The dotted groups have VHAP's names; few need them. All options, those of single stages too:\n"
        "--help-all",
        defaults="defaults",
    ),
    Stage(
        "track",
        "track",
        "TrackConfig",
        "track",
        "Fits the head model to a video or a rig's recording, over time.",
        (
            "track --data.root_folder data/monocular --data.sequence obama --exp.output_folder output/obama",
            "track data/monocular/obama --exp.no-photometric",
        ),
        defaults="defaults",
    ),
    Stage(
        "track-nersemble",
        "track_nersemble",
        "TrackConfig",
        "track",
        "As track, for NeRSemble's recordings, first version.",
        (
            "track-nersemble --data.root_folder data/nersemble --data.subject 074 --data.sequence EMO-1",
            "track-nersemble data/nersemble/074/EMO-1 --exp.no-photometric",
        ),
        defaults="defaults_of_rig",
    ),
    Stage(
        "track-nersemble-v2",
        "track_nersemble_v2",
        "TrackConfig",
        "track",
        "As track, for NeRSemble's recordings, second version.",
        (
            "track-nersemble-v2 --data.root_folder data/nersemble_v2 --data.subject 074 --data.sequence EMO-1",
            "track-nersemble-v2 data/nersemble_v2/074/sequences/EMO-1 --exp.no-photometric",
        ),
        defaults="defaults_of_rig",
    ),
    Stage(
        "export",
        "export_as_nerf_dataset",
        "ExportConfig",
        "export",
        "Writes a fit as a dataset (by default that of VHAP and GaussianAvatars) or a mesh.",
        (
            "export --src-folder O/fit --tgt-folder O/export --background-color white",
            "export --src-folder O/fit --tgt-folder O/export --no-mask-below-line",
        ),
    ),
    Stage(
        "combine",
        "combine_nerf_datasets",
        "CombineConfig",
        "combine",
        "Unites exported datasets of one subject into one.",
        (
            "combine --src-folders export/074_EMO-1 export/074_EMO-2 --tgt-folder export/UNION2_074",
            "combine --src-folders a/export b/export --tgt-folder union --copy-images --subject me",
        ),
    ),
    Stage(
        "evaluate",
        "evaluate",
        "EvaluateConfig",
        "evaluate",
        "Measures a fit in millimetres, pixels and decibels; writes metrics.json and pictures.",
        ("evaluate O/fit", "evaluate output/demo/fit --ground-truth output/demo/avatar"),
    ),
    Stage(
        "view",
        "view",
        "ViewConfig",
        "view",
        "Shows a fit in the browser: avatar, head, errors, landmarks, cameras; poses it.",
        ("view O/fit", "view O/fit --port 8081 --save-to pictures"),
        only_shows=True,
    ),
    Stage(
        "convert",
        "convert",
        "ConvertConfig",
        "convert",
        "Rewrites FLAME parameters for another program: VHAP, GaussianAvatars, smplx, trackers.",
        (
            "convert O/fit --output O/smplx.npz --to smplx",
            "convert tracker/checkpoint --output O/vhap --to vhap",
        ),
    ),
    Stage(
        "make-demo-avatar",
        "make_demo_avatar",
        "MakeDemoAvatarConfig",
        "make_demo_avatar",
        "Makes a textured avatar whose true head is known.",
        ("make-demo-avatar --output output/demo/avatar", "make-demo-avatar --output output/demo2/avatar --seed 7"),
    ),
    Stage(
        "doctor",
        "doctor",
        "DoctorConfig",
        "doctor",
        "Says what is installed, what is missing, and the command that mends it.",
        ("doctor", "doctor --json"),
    ),
)
