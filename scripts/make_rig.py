"""A talking head of known truth before calibrated cameras and one camera, as the files that people have.

    python scripts/make_rig.py --output DIR [--frames 24] [--size 256] [--seed 0] [--clips nersemble monocular] ...

    DIR/nersemble       NeRSemble v1: camera_params/, color_correction/, <subject>/{BACKGROUND, <sequence>}
    DIR/nersemble_v2    NeRSemble v2: <subject>/{calibration, sequences}; two cameras of another size
    DIR/monocular       a video (H.264) and VHAP's folder of its frames
    DIR/fit/<clip>      the true track as a fit of this program
    DIR/track/<clip>    the same as a run folder of VHAP, in the world that VHAP tracks in
    DIR/truth/<clip>    truth.npz: parameters, cameras, landmarks with visibility, vertices; and pictures without loss
    DIR/contact_sheet.png

In the clip: speech, a blink, a wide-open mouth, a turn to 60 degrees, a frame without a face.
"""

import argparse
import sys
from pathlib import Path

from flame_fitting.errors import InputError


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=256, help="height of the pictures, px; a multiple of 64")
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", nargs="+", default=["nersemble", "nersemble_v2", "monocular"])
    parser.add_argument("--absent", choices=["blank", "away", "none"], default="blank", help="the frame without a face")
    parser.add_argument("--texture-size", type=int, default=1024)
    parser.add_argument("--white", action="store_true", help="a white background instead of plates")
    parser.add_argument("--no-videos", action="store_true")
    parser.add_argument("--no-images", action="store_true", help="no extracted pictures: preprocess makes them")
    parser.add_argument("--no-alpha-maps", action="store_true", help="no true alpha maps")
    parser.add_argument("--landmarks", action="store_true", help="true landmarks as landmark2d/STAR has them")
    parser.add_argument("--force", action="store_true")
    given = parser.parse_args()

    from rig.making import RigConfig, make_rig
    from rig.sheet import write_sheet

    config = RigConfig(
        given.output, given.frames, given.size, given.fps, given.seed, tuple(given.clips), given.absent,
        texture_size=given.texture_size, white=given.white, videos=not given.no_videos, images=not given.no_images,
        alpha_maps=not given.no_alpha_maps, landmarks=given.landmarks, force=given.force,
    )  # fmt: skip
    try:
        rig = make_rig(config)
    except InputError as error:
        print(f"make_rig: {error}", file=sys.stderr)
        return 2
    print(f"{given.frames} frames: {', '.join(f'{name} {t}' for name, t in rig.events.items())} -> {given.output}")
    print(write_sheet(rig, config.clips))
    return 0


if __name__ == "__main__":
    sys.exit(main())
