"""Output folders: locks, what killed runs leave, links, mount points. Nothing of it may cost a finished result."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flame_fitting import folders
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write
from flame_fitting.folders import capture_folder, fit_folder, locked_folder, staged_folder
from flame_fitting.manifest import Manifest, check_output_folder, hash_folder, read_manifest

HOLDER = """
import sys, time
from flame_fitting.folders import staged_folder
with staged_folder(sys.argv[1]) as folder:
    (folder / "half").write_text("half")
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path, repository: Path) -> Any:
    """Starts another process that is at work on a folder; returns it."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def publish(target: Path, text: str = "new", **options: Any) -> None:
    with staged_folder(target, **options) as folder:
        (folder / "images").mkdir()
        (folder / "images" / "a.png").write_text(text)
        (folder / "data").write_text(text)
        Manifest(stage="render", finished=True).write(folder)


def content(folder: Path) -> dict[str, str]:
    names = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "manifest.json")
    return {p.relative_to(folder).as_posix(): p.read_text() for p in names}


NEW = {"data": "new", "images/a.png": "new"}


# Locks


def test_a_second_process_is_refused_and_told_who_is_there(holder: Any, tmp_path: Path) -> None:
    process = holder(tmp_path / "out")
    with pytest.raises(InputError, match=rf"out: another run writes into this folder \(process {process.pid} on"):
        publish(tmp_path / "out")
    publish(tmp_path / "other")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "out")
    with pytest.raises(InputError, match="another run"):
        publish(link)


def test_the_command_line_says_it_with_exit_code_2(
    holder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flame_fitting import cli

    (tmp_path / "a.obj").write_text("v 0 0 0\n")
    holder(tmp_path / "out")
    assert cli.main(["run", str(tmp_path / "a.obj"), "--output", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out'}: another run writes into this folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_killed_process_holds_nothing_and_what_it_left_goes(holder: Any, tmp_path: Path) -> None:
    process = holder(tmp_path / "out")
    running = holder(tmp_path / "out-other")
    process.kill()
    process.wait()
    left = [p.name for p in tmp_path.iterdir() if p.name.startswith(".out-") and "out-other" not in p.name]
    assert len(left) == 1 and (tmp_path / ".out.lock").is_file()
    publish(tmp_path / "out")
    assert content(tmp_path / "out") == NEW
    others = sorted(p.name for p in tmp_path.iterdir() if p.name != "out")
    assert [name for name in others if "out-other" not in name] == []
    assert running.poll() is None and len(others) == 2  # the lock and the work of the one that still runs


def test_no_trace_is_left_by_success_or_failure(tmp_path: Path) -> None:
    publish(tmp_path / "deep" / "er" / "out")
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == ["out"]
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "never" / "made"):
        raise RuntimeError
    assert not (tmp_path / "never").exists()


def test_blocks_of_one_thread_nest_and_other_threads_are_refused(tmp_path: Path) -> None:
    refused: list[str] = []

    def other() -> None:
        try:
            publish(tmp_path / "out", "other")
        except InputError as error:
            refused.append(str(error))

    with locked_folder(tmp_path / "out"):
        publish(tmp_path / "out")
        publish(tmp_path / "beside")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1 and "another run" in refused[0]
    assert content(tmp_path / "out") == NEW
    publish(tmp_path / "out", "other")  # free again


def test_a_lock_file_that_was_removed_between_opening_and_locking_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who had it removes it at its end: whoever opened it before must take the new one."""
    real, paths = folders._try_lock, []

    def remove_first(descriptor: int) -> bool:
        paths.append(descriptor)
        if len(paths) == 1:
            (tmp_path / ".out.lock").unlink()
        return real(descriptor)

    monkeypatch.setattr(folders, "_try_lock", remove_first)
    with locked_folder(tmp_path / "out"):
        assert len(paths) == 2 and (tmp_path / ".out.lock").is_file()


# What killed runs leave


def test_leftovers_go_and_neighbours_with_like_names_stay(tmp_path: Path) -> None:
    publish(tmp_path / "out")
    for name in (".out-abcd1234.partial", ".out-abcd1234.old", ".out-b-abcd1234.partial", ".outer-abcd1234.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out-notes.partial").mkdir()  # nothing that this program makes
    (tmp_path / "out" / ".metrics-partial-ab12cd34.json").write_text("{")
    (tmp_path / "out" / ".hidden").write_text("mine")
    publish(tmp_path / "out")
    hidden = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("."))
    assert hidden == [".out-b-abcd1234.partial", ".out-notes.partial", ".outer-abcd1234.partial"]
    assert content(tmp_path / "out") == NEW | {".hidden": "mine"}


def test_names_of_unfinished_files_are_those_that_are_swept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "metrics.json") as temporary:
        name = temporary.name
        raise KeyboardInterrupt
    (tmp_path / name).write_text("left by a kill")
    with locked_folder(tmp_path, force=True):
        assert list(tmp_path.iterdir()) == []


def test_a_folder_with_nothing_but_leftovers_is_free(tmp_path: Path) -> None:
    for name in (".render.lock", ".render-abcd1234.partial", "lost+found"):
        (tmp_path / name).mkdir()
    check_output_folder(tmp_path)
    (tmp_path / ".bashrc").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        check_output_folder(tmp_path)


def test_hidden_files_do_not_change_a_folder(tmp_path: Path) -> None:
    publish(tmp_path / "capture")
    before = hash_folder(tmp_path / "capture")
    (tmp_path / "capture" / ".landmarks2d.lock").write_text("process 1")
    (tmp_path / "capture" / "images" / ".DS_Store").write_text("?")
    assert hash_folder(tmp_path / "capture") == before
    (tmp_path / "capture" / "images" / "b.png").write_text("!")
    assert hash_folder(tmp_path / "capture") != before
    with pytest.raises(InputError, match=r"data: no such folder"):
        hash_folder(tmp_path / "capture" / "data")


# Links and mount points


@pytest.mark.parametrize("exists", ["absent", "empty", "ours"])
def test_a_link_is_followed(exists: str, tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    if exists == "empty":
        real.mkdir(parents=True)
    elif exists == "ours":
        publish(real, "old")
    link.symlink_to(real)
    publish(link)
    assert link.is_symlink() and content(real) == NEW and sorted(p.name for p in tmp_path.iterdir()) == ["disk", "link"]


def test_links_in_a_circle_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="Choose another"):
        check_output_folder(tmp_path / "a")
    with pytest.raises(InputError, match="Choose another"):
        publish(tmp_path / "a" / "out")


def across(target: Path, is_mount_point: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Renames as they fail where `target` is another file system: not across its border, and not the point itself."""

    def wrap(real: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Any, destination: Any) -> None:
            if is_mount_point and target in (Path(source), Path(destination)):
                raise OSError(errno.EBUSY, "Device or resource busy", str(source))
            inside = [Path(path).is_relative_to(target) and Path(path) != target for path in (source, destination)]
            if inside[0] != inside[1]:
                raise OSError(errno.EXDEV, "Invalid cross-device link", str(source))
            real(source, destination)

        return rename

    return wrap


@pytest.mark.parametrize("before", ["empty", "ours"])
@pytest.mark.parametrize("known", [True, False], ids=["mount", "bind mount"])
def test_a_mount_point_is_written_into(
    before: str, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be renamed onto it. Of a bind mount not even `os.path.ismount` knows."""
    target = tmp_path / "disk"
    target.mkdir()
    if before == "ours":
        publish(target, "old")
        (target / "kept").write_text("kept")
        (target / "stale").mkdir()
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, across(target, True)(getattr(os, name)))
    monkeypatch.setattr(os, "rmdir", refuse_at(target, os.rmdir))
    if known:
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == target)
    with locked_folder(target):
        assert (target / ".lock").exists() == known
        publish(target, stale=("stale",))
    assert content(target) == NEW | ({"kept": "kept"} if before == "ours" else {})
    manifest = read_manifest(target)
    assert manifest is not None and manifest.finished
    assert sorted(p.name for p in target.iterdir() if p.name.startswith(".")) == []
    assert [p.name for p in tmp_path.iterdir()] == ["disk"]


def refuse_at(target: Path, real: Callable[..., None]) -> Callable[..., None]:
    def rmdir(path: Any, **options: Any) -> None:
        if path == target or path == str(target):
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        real(path, **options)

    return rmdir


def test_a_copy_that_fails_half_way_is_not_taken_for_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "disk"
    target.mkdir()
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, across(target, True)(getattr(os, name)))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(OSError, match="No space"):
        publish(target)
    manifest = read_manifest(target)
    assert manifest is not None and not manifest.finished
    check_output_folder(target)  # ours, so the next run may go on
    assert [p.name for p in tmp_path.iterdir()] == ["disk"]


def test_a_folder_keeps_its_place_when_it_is_filled(tmp_path: Path) -> None:
    """Somebody may stand in it, share it or have given it rights."""
    target = tmp_path / "out"
    target.mkdir(mode=0o750)
    before = target.stat()
    publish(target)
    after = target.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode) and content(target) == NEW


# Files in place of their folders


def test_a_file_stands_for_its_folder(tmp_path: Path) -> None:
    for name in ("transforms.json", "tracked_flame_params.npz", "tracked_flame_params_30.npz", "other.json"):
        (tmp_path / name).write_text("")
    assert capture_folder(tmp_path / "transforms.json") == capture_folder(tmp_path) == tmp_path
    assert fit_folder(tmp_path / "tracked_flame_params.npz") == fit_folder(tmp_path) == tmp_path
    assert fit_folder(tmp_path / "tracked_flame_params_30.npz") == tmp_path
    for folder_of in (capture_folder, fit_folder):
        with pytest.raises(InputError, match="absent: no such folder"):
            folder_of(tmp_path / "absent")
    with pytest.raises(InputError, match=r"other\.json: is a file"):
        capture_folder(tmp_path / "other.json")
