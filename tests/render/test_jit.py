"""Spreading tasks over threads."""

import threading

import numpy as np
import pytest

from flame_fitting.render.jit import run, set_threads


@pytest.fixture(autouse=True)
def four_threads():
    set_threads(4)
    yield
    set_threads(None)


@pytest.mark.parametrize("n_tasks", [0, 1, 3, 4, 17, 100])
def test_every_task_is_done_once(n_tasks: int) -> None:
    done = np.zeros(n_tasks, np.int64)

    def count(first: int, last: int, step: int) -> None:
        done[first:last] += step

    run(count, n_tasks, 2)
    assert (done == 2).all()


def test_tasks_run_side_by_side() -> None:
    barrier = threading.Barrier(4, timeout=20)

    def meet(first: int, last: int) -> None:
        if first % 4 == 0 and first < 16:
            barrier.wait()

    run(meet, 16)
    assert not barrier.broken


def test_errors_reach_the_caller() -> None:
    def fail(first: int, last: int) -> None:
        if last == 50:
            raise RuntimeError("task 49")

    with pytest.raises(RuntimeError, match="task 49"):
        run(fail, 50)
