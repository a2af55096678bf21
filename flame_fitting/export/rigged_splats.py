"""Format `rigged-splats`: the splats that were fitted, bound to the fitted head, and posed with it.

point_cloud.ply       the avatar's own file where it is a PLY of splats in the world, else all its splats as 3DGS's PLY
binding.npz           where on the head each of its splats lies and what it follows (docs/conventions.md)
posed.ply, posed/00000.ply ...   the splats at other parameters than they were fitted at: --pose, --parameters
animation.jpg, .gif   how they move
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.bound_splats import BINDING
from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.ply import vertex_properties
from flame_fitting.avatar.splat_avatar import SplatAvatar
from flame_fitting.avatar.splat_moving import placed
from flame_fitting.avatar.splat_ply import splat_ply
from flame_fitting.avatar.splats import Splats
from flame_fitting.capture.files import write_npz
from flame_fitting.errors import InputError
from flame_fitting.export.driving import at_parameters, shown_at
from flame_fitting.export.job import ExportJob, ExportSummary
from flame_fitting.export.meshes import check_space, posed_fit
from flame_fitting.export.rigging.avatar_file import avatar_of, check_unchanged
from flame_fitting.export.rigging.fitted_head import FittedHead, fitted_head
from flame_fitting.export.rigging.parts import Role
from flame_fitting.export.rigging.showing import Pose, Stage
from flame_fitting.export.rigging.splat_binding import Binding, bind, binding_arrays
from flame_fitting.files import atomic_write
from flame_fitting.fit.result import FitResult
from flame_fitting.head.actions import BLINK, actions_of
from flame_fitting.head.model import HeadModel
from flame_fitting.report.figures import write_jpeg

CLOUD, BINDING_NAME, POSED, SHEET, GIF = "point_cloud.ply", "binding.npz", "posed", "animation.jpg", "animation.gif"
_STEPS = 3
"""Pictures of the GIF on the way to a pose: splats take longer to pose than meshes."""
_FEW = 20
"""Splats of an eye or of the mouth's inside below which there is none to speak of."""


@dataclass(eq=False)
class BoundAvatar:
    """Splats of an avatar on the head that was fitted to them."""

    path: Path
    splats: Splats
    """The avatar's own coordinates; all of its file that are splats, also those that nobody sees."""
    head: FittedHead
    binding: Binding
    warnings: list[str]

    def posed(self, target: FittedHead, placed_by: Float[ndarray, "4 4"] | None) -> Splats:
        """At other parameters, head space; or where a similarity takes that."""
        posed = self.binding.posed(self.head, target)
        return posed if placed_by is None else placed(posed, placed_by)


def bound_avatar(path: Path, sha256: str | None, fit: FitResult, model: HeadModel) -> BoundAvatar:
    """Binds the splats in a file (`sha256` where it is known) as they were fitted at the fit's first timestep."""
    avatar = load_avatar(path, head=lambda: model, whole=True)
    if not isinstance(avatar, SplatAvatar):
        raise InputError(
            f"{path}: is a mesh, and only Gaussian splats are bound so. --format rigged-avatar rigs a mesh."
        )
    check_unchanged(avatar, sha256)
    head = fitted_head(fit, model)
    binding = bind(placed(avatar.splats, fit.head_from_world), head)
    count = np.bincount(binding.role, minlength=len(Role))
    warnings = []
    if min(count[Role.LEFT_EYE], count[Role.RIGHT_EYE]) < _FEW // 2:
        warnings.append(f"{path}: no splats of eyeballs could be told, or of one only: turned eyes show little.")
    if count[Role.JAW] < _FEW:
        warnings.append(f"{path}: there are no splats in the mouth: open, it shows what lies behind its lips.")
    return BoundAvatar(path, avatar.splats, head, binding, warnings)


def write_rigged_splats(job: ExportJob) -> ExportSummary:
    """Writes the splats, their binding, the posed ones and the pictures."""
    options, record = job.options, job.capture.avatar
    space = check_space(options.space, options.pose)
    if options.parameters is None:
        moves = posed_fit(job.fit, options.pose)
        rows = list(range(moves.timesteps)) if moves.timesteps > 1 or options.pose != "fit" else []
    else:
        moves, doubts = at_parameters(job.fit, job.head, options.parameters)
        job.warnings.extend(doubts)
        rows = list(range(moves.timesteps))
    made = bound_avatar(avatar_of(job.capture, options.avatar, "splats"), record.sha256, job.fit, job.head)
    stage = Stage(ShownSplats(made), made.head, "unlit", _STEPS)
    job.bar.expect(stage.pictures + len(rows))
    back = None if space == "head" else np.linalg.inv(job.fit.head_from_world)
    with job.folder((CLOUD, BINDING_NAME, POSED, f"{POSED}.ply", SHEET, GIF)) as folder:
        content, row = cloud_of(made)
        _write(folder / CLOUD, content)
        write_npz(
            folder / BINDING_NAME, binding_arrays(made.binding, made.head, job.fit.head_from_world) | {"row": row}
        )
        if len(rows) > 1:
            (folder / POSED).mkdir()
        for number, each in enumerate(rows):
            target = fitted_head(moves, job.head, each)
            name = f"{POSED}/{number:05d}.ply" if len(rows) > 1 else f"{POSED}.ply"
            _write(folder / name, splat_ply(made.posed(target, back)))
            job.bar.advance()
        write_jpeg(folder / SHEET, stage.sheet(job.bar.advance))
        _write(folder / GIF, stage.gif(job.bar.advance))
    where = "the avatar's own coordinates" if space == "avatar" else "head space, metres"
    written = f"{len(made.splats)} splats" + (
        f", posed {len(rows)} time{'s'[: len(rows) - 1]} ({where})" if rows else ""
    )
    opens = f"{CLOUD} and what is posed are PLY files of 3DGS. How they move: {job.target / SHEET} and {GIF}."
    return ExportSummary(job.target, written, opens, [*(record.warnings or ()), *made.warnings, *job.warnings])


def cloud_of(made: BoundAvatar) -> tuple[bytes, ndarray]:
    """What point_cloud.ply holds, and which of its rows each splat of the binding is."""
    rows = made.splats.row
    if made.path.suffix.lower() == ".ply" and rows is not None:
        content = made.path.read_bytes()
        if BINDING not in vertex_properties(content):
            return content, rows.astype(np.int32)
    return splat_ply(made.splats), np.arange(len(made.splats), dtype=np.int32)


class ShownSplats:
    """Bound splats, posed by the head's own parameters."""

    has_joints = True

    def __init__(self, made: BoundAvatar) -> None:
        self._made = made
        actions = actions_of(made.head.model)
        self.targets = set(() if actions is None else actions.names)
        if made.head.apertures is not None:
            self.targets |= {f"{BLINK}Left", f"{BLINK}Right"}

    def avatar(self, pose: Pose) -> Avatar:
        """See `showing.Shown`."""
        binding, head = self._made.binding, self._made.head
        splats = binding.splats if not pose.turns and not pose.weights else None
        if splats is None:
            splats = binding.posed(head, shown_at(head, pose.turns, pose.weights))
        return SplatAvatar(replace(splats, row=None), Path("memory"), "", "memory")


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
