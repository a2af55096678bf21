"""Runs methods on cases: captures are built ahead in processes, fits run here, measuring runs in processes beside."""

import argparse
import dataclasses
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_fitting.fit.check import check

from .cases import Case, Places, all_cases, default_data
from .methods import MAIN, Method, all_methods, shortened
from .peer import NAME as PEER

if TYPE_CHECKING:
    import torch

    from flame_fitting.fit.config import FitConfig
    from flame_fitting.fit_avatar import PreparedFit

    from .measure import Fitted

RESULTS = "results.jsonl"
PICTURED = ("static", "static no geometry", "vhap")


@dataclass
class Bench:
    """What is asked for."""

    output: Path
    places: Places
    device: str = "auto"
    time_limit: float = float("inf")
    workers: int = 2
    keep: bool = False
    """Whether captures stay after the run; they are taken over from an earlier one anyway."""

    def folder(self, case: Case) -> Path:
        """Where a case lies."""
        return self.output / "cases" / case.name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this mode."""
    group = parser.add_argument_group("cases of known truth")
    group.add_argument("--cases", nargs="*", metavar="PART", help="run cases whose name contains one of these (all)")
    group.add_argument("--methods", nargs="*", metavar="PART", help="methods whose name contains one of these (all)")
    group.add_argument("--exact", action="store_true", help="the parts are whole names")
    group.add_argument("--small", action="store_true", help="8 views of 256 px in every case, to try things out")
    group.add_argument("--no-peer", action="store_true", help="leave trimesh's non-rigid ICP out")
    group.add_argument("--list", action="store_true", help="print the names of cases and methods")
    group.add_argument("--build-only", action="store_true", help="make the captures and stop")
    group.add_argument("--data", type=Path, default=None, help="test data (default: as the tests find it)")
    group.add_argument("--landmarks", type=Path, default=None, help="folder of detected landmarks, <case>.npz")
    group.add_argument("--save-landmarks", type=Path, default=None, help="put detected landmarks into this folder")
    group.add_argument("--model-path", type=Path, default=None, help="weights of the landmark detector")
    group.add_argument("--device", default="auto")
    group.add_argument("--time-limit", type=float, default=float("inf"), help="no fit starts after these seconds")
    group.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="processes beside")
    group.add_argument("--shard", default="0/1", help="K/N: every Nth case, for N machines or GPUs")
    group.add_argument("--skip", type=Path, nargs="*", default=[], help="results whose rows are not made again")
    group.add_argument("--merge", type=Path, nargs="*", help="results to make the tables from; runs nothing")
    group.add_argument("--doc", action="store_true", help="with --merge: write the tables into docs/accuracy.md")
    group.add_argument("--pictures", type=Path, nargs="*", help="with --merge: folders of pictures to choose from")


def wanted(arguments: argparse.Namespace) -> bool:
    """Whether the command line asks for this mode."""
    return arguments.cases is not None or arguments.merge is not None or arguments.list


def main(arguments: argparse.Namespace) -> int:
    """Runs the mode."""
    if arguments.merge is not None:
        from .tables import merge

        return merge(arguments.merge, arguments.doc, arguments.pictures or [])
    places = Places(arguments.data or default_data(), arguments.landmarks, arguments.model_path)
    cases = [case for case in all_cases() if _chosen(case.name, arguments.cases, arguments.exact)]
    if arguments.small:
        cases = [dataclasses.replace(case, views=8, size=256) for case in cases]
    methods = [method for method in all_methods() if _chosen(method.name, arguments.methods, arguments.exact)]
    if arguments.list:
        print("\n".join(["cases: " + " ".join(case.name for case in cases), *[method.name for method in methods]]))
        return 0
    missing = {case.name: places.missing(case) for case in cases}
    for name, why in missing.items():
        if why:
            print(f"{name} is left out: {why}", flush=True)
    shard, count = (int(part) for part in arguments.shard.split("/"))
    cases = [case for case in cases if not missing[case.name]][shard::count]
    with_peer = not arguments.no_peer and (not arguments.methods or _chosen(PEER, arguments.methods, arguments.exact))
    bench = Bench(arguments.output, places, arguments.device, arguments.time_limit, arguments.workers)
    if arguments.build_only or arguments.save_landmarks:
        return build_all(bench, cases, arguments.save_landmarks)
    done = read_rows([*arguments.skip, bench.output / RESULTS])
    return run(bench, cases, methods, with_peer, {(row["case"], row["method"]) for row in done if "error" not in row})


def _chosen(name: str, parts: list[str] | None, exact: bool) -> bool:
    return not parts or any(part == name if exact else part in name for part in parts)


def read_rows(files: list[Path]) -> list[dict[str, Any]]:
    """Rows of result files, the last of each case and method, in the order of the files."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for file in files:
        if file.is_file():
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                rows[row["case"], row["method"]] = row
    return list(rows.values())


@contextmanager
def processes(count: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes use few threads each and are quiet."""
    import multiprocessing

    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(max(1, count), mp_context=context, initializer=_quiet, initargs=(threads,))
    try:
        # processes start as jobs come: the variables stay until the pool goes
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _quiet(threads: int) -> None:
    # not by the parent's environment: Numba reads it again there
    import numba

    os.nice(5)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    numba.set_num_threads(threads)


def build_case(case: Case, folder: Path, places: Places) -> float:
    """Makes a capture unless it is there; seconds."""
    from flame_fitting import progress

    from .cases import build

    started, mark = time.perf_counter(), folder / "made.json"
    about = json.dumps({"case": repr(case), "landmarks": str(places.landmarks)})
    if not mark.is_file() or mark.read_text() != about:
        with progress.silent(True):
            build(case, folder, places)
        mark.write_text(about)
    return time.perf_counter() - started


def build_all(bench: Bench, cases: list[Case], landmarks: Path | None) -> int:
    """Makes the captures, and copies detected landmarks out of them."""
    if landmarks is not None:
        cases = [case for case in cases if case.landmarks == "detected"]
        landmarks.mkdir(parents=True, exist_ok=True)
    with processes(bench.workers, 1) as pool:
        made = [pool.submit(build_case, case, bench.folder(case), bench.places) for case in cases]
        for case, future in zip(cases, made, strict=True):
            print(f"{case.name}: {future.result():.1f} s", flush=True)
            if landmarks is not None:
                content = (bench.folder(case) / "capture" / "landmarks2d" / "mediapipe.npz").read_bytes()
                (landmarks / f"{case.name}.npz").write_bytes(content)
    return 0


def run(bench: Bench, cases: list[Case], methods: list[Method], peer: bool, done: set[tuple[str, str]]) -> int:
    """Fits and measures; rows go into results.jsonl as they come."""
    from flame_fitting.render.backend import choose_device

    started = time.perf_counter()
    bench.output.mkdir(parents=True, exist_ok=True)
    device = choose_device(bench.device)
    # main methods on all cases first: what a time limit cuts off is ablations
    main_names = {method.name for method in MAIN if not method.cases}
    tiers: list[list[tuple[Case, Method]]] = [[], [], []]
    for case in cases:
        for method in methods:
            if method.runs_on(case.name) and (case.name, method.name) not in done:
                tiers[0 if method.name in main_names else 2 if method.base else 1].append((case, method))
    jobs = [job for tier in tiers for job in tier]
    peers = [case for case in cases if peer and (case.name, PEER) not in done]
    needed = {case.name for case, _ in jobs} | {case.name for case in peers}
    print(f"{len(jobs)} fits and {len(peers)} peers on {len(needed)} cases, {device}", flush=True)
    failed = 0
    beside = max(1, bench.workers // 2)
    with processes(beside, 1) as pool, processes(bench.workers - beside, 1) as peer_pool:
        captures = {
            case.name: pool.submit(build_case, case, bench.folder(case), bench.places)
            for case in cases
            if case.name in needed
        }
        waiting: list[tuple[dict[str, Any], Future]] = []
        peers_left = list(peers)

        def submit_peers() -> None:
            # as soon as a capture is there
            for case in list(peers_left):
                if captures[case.name].done() and captures[case.name].exception() is None:
                    peers_left.remove(case)
                    waiting.append((_about(case, PEER), peer_pool.submit(run_peer, bench, case)))

        prepared_ones: dict[str, PreparedFit] = {}
        tier_of_main = {method for method in MAIN if not method.cases}
        warm = device.type != "cuda"
        for case, method in jobs:
            if time.perf_counter() - started > bench.time_limit:
                print(f"the time limit of {bench.time_limit:g} s is reached", flush=True)
                break
            row = _about(case, method.name)
            try:
                captures[case.name].result()
                if not warm:
                    warm_up(bench, case, [m for _, m in jobs], device)
                    warm = True
                submit_peers()
                shared = prepared_ones if method not in tier_of_main else None
                fitted, numbers = fit_once(bench, case, method.config(), device, shared)
            except Exception as error:  # one case less, not all
                failed += 1
                prepared_ones.clear()
                write_row(bench, row | {"error": f"{type(error).__name__}: {error}"})
                traceback.print_exc(file=sys.stdout)
                continue
            picture = bench.output / "pictures" / f"{case.name}.{method.name.replace(' ', '_')}.jpg"
            shown = picture if method.name in PICTURED else None
            config = method.config()
            spec = bench.places.head(case)
            future = pool.submit(measured, bench.folder(case), fitted, spec, config.model.add_teeth, shown)
            waiting.append((row | numbers, future))
            waiting = _collect(bench, waiting)
        if time.perf_counter() - started <= bench.time_limit:
            for case in list(peers_left):
                captures[case.name].exception()
            submit_peers()
        while waiting:
            time.sleep(0.2)
            waiting = _collect(bench, waiting)
    print(f"{time.perf_counter() - started:.0f} s in all, {failed} failed", flush=True)
    return 1 if failed else 0


def _about(case: Case, method: str) -> dict[str, Any]:
    return {
        "case": case.name,
        "kind": case.kind,
        "method": method,
        "like": case.like,
        "head": Path(case.head).stem,
        "textured": case.textured,
    }


def _collect(bench: Bench, waiting: list[tuple[dict[str, Any], Future]]) -> list[tuple[dict[str, Any], Future]]:
    """Writes the rows that are ready; returns the others."""
    left = []
    for row, future in waiting:
        if not future.done():
            left.append((row, future))
        elif future.exception() is not None:
            write_row(bench, row | {"error": f"{type(future.exception()).__name__}: {future.exception()}"})
        else:
            write_row(bench, row | future.result())
    return left


def write_row(bench: Bench, row: dict[str, Any]) -> None:
    """Appends a line and prints it in short."""
    with (bench.output / RESULTS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
    if "error" in row:
        print(f"{row['case']:<18} {row['method']:<34} {row['error'][:200]}", flush=True)
        return

    def number(key: str, digits: int) -> str:
        return f"{row[key]:.{digits}f}" if row.get(key) is not None else "-"

    values = [
        f"face {number('face_surface_mm', 3)} / {number('face_vertex_mm', 2)} mm",
        " ".join(f"{name} {number(f'{name}_surface_mm', 2)}" for name in ("ears", "neck", "scalp")),
        f"marks {number('landmark_mm', 2)}",
        f"IoU {number('silhouette_iou', 4)}",
        f"{number('psnr_db', 1)} dB",
        f"{number('seconds', 1)} s",
        f"{len(row.get('warnings', []))} warnings" if row.get("warnings") else "",
    ]
    print(f"{row['case']:<18} {row['method']:<34} " + "  ".join(values), flush=True)


def completed(config: "FitConfig", bench: Bench, case: Case) -> "FitConfig":
    """A method's options with everything that belongs to the case and the machine."""
    config.capture = bench.folder(case) / "capture"
    config.output = bench.folder(case) / "fit"
    config.head, config.device = bench.places.head(case), bench.device
    config.model_path, config.detect = bench.places.model_path, False
    config.landmark_embedding = bench.places.embedding(case)
    config.scale = "fixed" if case.rig else config.scale
    config.log.overlays = config.log.tensorboard = False
    check(config)
    return config


def fresh(prepared: "PreparedFit") -> "PreparedFit":
    """What a fit starts from, as if it had been loaded again."""
    from flame_fitting.fit.texture import TexelMaps

    seen = prepared.seen
    texels = None if seen.rasterizer is None else TexelMaps(seen.rasterizer, seen.head)
    return dataclasses.replace(prepared, seen=dataclasses.replace(seen, texels=texels))


def prepared_for(config: "FitConfig", device: "torch.device", shared: "dict[str, PreparedFit] | None") -> "PreparedFit":
    """Reads a capture, or takes it from `shared`, where it was read with the same options before."""
    from flame_fitting.fit_avatar import prepare

    if shared is None:
        return prepare(config, device)
    key = repr((config.capture, config.head, config.data, config.model.add_teeth, config.model.occluded))
    if key not in shared:
        while len(shared) > 1:
            del shared[next(iter(shared))]
        shared[key] = prepare(config, device)
    return fresh(shared[key])


def fit_once(
    bench: Bench,
    case: Case,
    config: "FitConfig",
    device: "torch.device",
    shared: "dict[str, PreparedFit] | None" = None,
) -> tuple["Fitted", dict[str, Any]]:
    """One fit in memory. Seconds are those from the loaded capture to the result."""
    import torch

    from flame_fitting import progress
    from flame_fitting.fit.driver import run_stages
    from flame_fitting.fit.saving import make_result

    from .measure import Fitted

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    config = completed(config, bench, case)
    with progress.silent(True):
        began = time.perf_counter()
        prepared = prepared_for(config, device, shared)
        wait()
        started = time.perf_counter()
        state = run_stages(prepared.state, prepared.seen, config, device)
        result = make_result(state, prepared.seen, prepared.start, prepared.capture)
        wait()
        ended = time.perf_counter()
    numbers = {
        "seconds": ended - started,
        "load_seconds": started - began,
        "stages": {record.name: round(record.seconds, 3) for record in result.stages[1:]},
        "rejected": [record.name for record in result.stages if not record.accepted],
        "warnings": list(result.warnings),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
    }
    vertices = result.vertices_world(prepared.head)[0]
    return Fitted(vertices, result.head_from_world, result.texture, result.lights), numbers


def warm_up(bench: Bench, case: Case, methods: list[Method], device: "torch.device") -> None:
    """Kernels are compiled and loaded by a short fit of each main method, and a whole one of the first."""
    started = time.perf_counter()
    names = {method.base or method.name for method in methods}
    chosen = [method for method in MAIN if method.name in names]
    for method in chosen:
        try:
            fit_once(bench, case, shortened(method.config()), device)
        except Exception:  # the fit itself will say so
            traceback.print_exc(file=sys.stdout)
    print(f"warm after {time.perf_counter() - started:.0f} s", flush=True)


def measured(folder: Path, fitted: "Fitted", spec: str, add_teeth: bool, picture: Path | None) -> dict[str, Any]:
    """`measure`, in a process of its own."""
    from flame_fitting import progress

    from .measure import measure

    with progress.silent(True):
        return measure(folder, fitted, spec, add_teeth, picture)


def run_peer(bench: Bench, case: Case) -> dict[str, Any]:
    """The peer on one case, measured, in a process of its own."""
    from flame_fitting import progress
    from flame_fitting.head.loading import load_head

    from .measure import Fitted, measure
    from .peer import register

    folder, spec = bench.folder(case), bench.places.head(case)
    with progress.silent(True):
        found = register(folder / "capture", folder / "avatar" / "mesh.npz", spec, bench.places.model_path)
        import numpy as np

        with np.load(folder / "avatar" / "ground_truth.npz", allow_pickle=False) as data:
            frame = data["head_from_world"]
        assert len(found.vertices_world) == load_head(spec, add_teeth=False).n_vertices
        numbers = measure(folder, Fitted(found.vertices_world, frame), spec, add_teeth=False)
    return numbers | {"seconds": found.seconds, "warnings": found.warnings, "device": "CPU, one thread"}
