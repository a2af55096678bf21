"""What a fit that is under way keeps in a hidden folder beside its own, so that a killed one goes on where it was."""

from dataclasses import replace
from pathlib import Path

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.fit.checkpoint import (
    CHECKPOINT_NAME,
    Checkpoint,
    load_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)
from flame_fitting.fit.state import FitState
from flame_fitting.folders import hidden_folder
from flame_fitting.head.model import HeadModel
from flame_fitting.manifest import Manifest, compare, read_manifest


class Resumable:
    """The state of a fit after its last finished stage, and the plan that led to it."""

    def __init__(self, folder: Path, plan: Manifest, ignored: frozenset[str]) -> None:
        """`folder` is the fit's own, locked; `plan` says what decides the result, but for the options `ignored`."""
        self._folder, self._plan, self._ignored = hidden_folder(folder, "resume"), plan, ignored
        self._is_ours = False
        """Whether what lies in the folder belongs to this plan."""

    def left(self, head: HeadModel) -> FitState | None:
        """What an earlier run of the same plan left, if it left something that can be read."""
        path = self._folder / CHECKPOINT_NAME
        if not path.is_file():
            return None
        try:
            difference = compare(read_manifest(self._folder), self._plan, self._ignored)
            checkpoint = load_checkpoint(path)
            checkpoint.check_head(path, head)
        except InputError as error:
            difference = str(error)
        if difference is not None:
            progress.say(f"an earlier run was stopped, and this one starts anew: {difference}")
            remove_checkpoint(self._folder)
            return None
        last = checkpoint.state.records[-1].name if checkpoint.state.records else "the start"
        underway = checkpoint.state.underway
        where = f"after {last}" if underway is None else f"in the middle of {underway.stage}"
        self._is_ours = True
        progress.say(f"goes on {where}, where an earlier run was stopped")
        return checkpoint.state

    def keep(self, state: FitState, head: HeadModel) -> None:
        """Saves a state; the plan first, so that no checkpoint lies there without its own."""
        if not self._is_ours:
            remove_checkpoint(self._folder)
            self._folder.mkdir(parents=True, exist_ok=True)
            replace(self._plan, finished=True).write(self._folder)
            self._is_ours = True
        save_checkpoint(self._folder / CHECKPOINT_NAME, Checkpoint(state, head.file_hash))

    def kept(self) -> str | None:
        """A sentence on what another run of this plan would go on with; None where there is nothing."""
        if not (self._folder / CHECKPOINT_NAME).is_file():
            return None
        try:
            if compare(read_manifest(self._folder), self._plan, self._ignored) is not None:
                return None
        except InputError:
            return None
        return f"The fit's last checkpoint is kept ({self._folder})."

    def remove(self) -> None:
        """The fit is finished."""
        remove_checkpoint(self._folder)
