"""The order of the trainings, several of them at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from rich.progress import Progress

from reproduction import sweeps
from reproduction.comparison import REGIMES, Settings, compared_methods, of_seeds
from reproduction.results import Results
from reproduction.training import Trial, train
from reproduction.workloads import WORKLOADS


def run(settings: Settings, folder: Path, results: Results, cores: int, progress: Progress) -> None:
    """Train all that is not in ``results`` yet: large batches first, tables one after the other, then sweeps.

    Args:
        settings: what is compared.
        folder: with the data.
        results: gets every outcome when it is known.
        cores: how many trainings to carry out at a time, each on one thread.
        progress: shows what is done.
    """
    # Spawned, since a fork would inherit the locks of PyTorch's threads.
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for workload, batch_size in _in_order(settings.workloads):
            methods = compared_methods(settings, workload, batch_size)
            cell = f"{workload}, batch {batch_size}"
            tuning = [trial for name in methods for trial in settings.trials(workload, name, batch_size)]
            _run_all(pool, tuning, folder, results, progress, f"{cell}: tuning")
            for regime in REGIMES:
                trials = [
                    trial
                    for name in methods
                    for trial in of_seeds(settings, results, workload, name, batch_size, regime) or ()
                ]
                _run_all(pool, trials, folder, results, progress, f"{cell}: {regime}")
        for workload in sweeps.workloads(settings):
            for name in settings.sweeps:
                _run_all(
                    pool, sweeps.trials(settings, workload, name), folder, results, progress, f"{workload}: {name}"
                )


def _in_order(workloads: Sequence[str]) -> Iterable[tuple[str, int]]:
    for turn in range(max(len(WORKLOADS[name].batch_sizes) for name in workloads)):
        for name in workloads:
            sizes = sorted(WORKLOADS[name].batch_sizes, reverse=True)
            if turn < len(sizes):
                yield name, sizes[turn]


def _run_all(
    pool: ProcessPoolExecutor, trials: Iterable[Trial], folder: Path, results: Results, progress: Progress, what: str
) -> None:
    left = [trial for trial in dict.fromkeys(trials) if trial not in results]
    futures = {pool.submit(train, trial, folder): trial for trial in left}
    try:
        for future in progress.track(as_completed(futures), total=len(futures), description=what):
            results.add(futures[future], future.result())
    except BaseException:
        pool.shutdown(cancel_futures=True)  # what is queued would hold up the error, or Ctrl-C
        raise
