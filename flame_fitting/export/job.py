"""What the writer of a format is given, and what it says of what it wrote."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flame_fitting.capture.capture import Capture
from flame_fitting.export.options import FormatOptions
from flame_fitting.fit.result import FitResult
from flame_fitting.folders import staged_folder
from flame_fitting.head.model import HeadModel
from flame_fitting.manifest import Manifest
from flame_fitting.progress import Bar


@dataclass
class ExportSummary:
    """What an export wrote."""

    folder: Path
    written: str
    """What lies in the folder, in a few words: "32 pictures"."""
    opens_in: str
    """One line for the user: which programs read it."""
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Pictures in each split, where there are splits."""


@dataclass(eq=False)
class ExportJob:
    """A fit that is to be written. Row k of the fit is the k-th timestep of the capture (`fit/alignment.aligned`)."""

    fit: FitResult
    head: HeadModel
    capture: Capture
    target: Path
    """Folder to write to, locked by whoever made the job."""
    options: FormatOptions
    """Those that mean nothing to the format have their defaults."""
    manifest: Manifest
    """What decides the result, planned before anything was read."""
    plan: Callable[[], Manifest]
    """Makes the manifest anew, to see whether an input has changed."""
    bar: Bar
    """To be told what to `expect` and to be advanced."""
    force: bool = False
    warnings: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def folder(self, stale: tuple[str, ...] = ()) -> Iterator[Path]:
        """A temporary folder that becomes the target, with its manifest, when the block ends without an error.

        `stale` names entries of an earlier export that go. Inputs that have changed meanwhile are added to `warnings`.
        """
        with staged_folder(self.target, self.force, stale=stale) as temporary:
            yield temporary
            self.manifest.transforms.setdefault("head_from_world", self.fit.head_from_world.tolist())
            self.warnings += self.manifest.finish(self.plan)
            self.manifest.write(temporary)
