"""Runs a study, job by job; each job's result is kept, so a study that was stopped goes on where it was."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import torch

from snugnet import pipeline
from snugnet.cluster import Cluster, own_errors
from snugnet.errors import ConfigError
from snugnet.files import locked
from snugnet.progress import progress_bar
from snugnet.study.config import StudyConfig
from snugnet.study.images import StudyImages
from snugnet.study.job import Job
from snugnet.study.outcomes import find_outcomes
from snugnet.study.results import JSON, MARKDOWN, Results
from snugnet.study.teacher import teacher_folder, teacher_recipe, train_teacher
from snugnet.training.threads import begin_worker


def run_study(
    config: StudyConfig, *, fresh: bool = False, progress: bool = True, cluster: Cluster | None = None
) -> Results:
    """Run all that is not there yet, and put the results together.

    Args:
        config: what to compare.
        fresh: throw away what an earlier run left in the output folder.
        progress: whether to show bars.
        cluster: that jobs are done on, instead of by ``workers`` of this machine; it shares the output folder.

    Raises:
        SnugnetError: a recipe, the data, a budget or a training cannot go on; the cluster does not share the folder.
    """
    folder = Path(config.output)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output {folder} is a file, not a folder")
    images = StudyImages(progress)
    _check(config, images, fresh)
    with locked(folder):
        if fresh:
            _forget(folder)
        if cluster is not None:
            cluster.check_folder(folder)
            submit = partial(cluster.submit, _work, config, threads=_threads(config), cuda=_on_gpu(config, cluster))
            with own_errors():
                try:
                    _side_by_side(config, submit, progress)
                except BaseException:
                    cluster.cancel()  # before the folder is another's
                    raise
            progress = False
        elif config.workers > 1:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(config.workers, context, begin_worker, (_threads(config),)) as pool:
                try:
                    _side_by_side(config, lambda *job: pool.submit(_work, config, *job), progress)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            progress = False
        outcomes, sampled = [], []
        for seed in config.seeds:
            for name in config.supernets:
                found, measured = find_outcomes(_job(config, name, seed, images, progress))
                outcomes += found
                sampled += measured
    return Results(config.model_dump(mode="json"), outcomes, pipeline.machine(), sampled)


def _check(config: StudyConfig, images: StudyImages, fresh: bool) -> None:
    """Refuse what would only fail after hours, or would compare what cannot be compared.

    Raises:
        SnugnetError: the recipe of a supernet cannot be run, or there is no such search.
        ConfigError: supernets have other superclasses, or budgets of another cost or range.
    """
    config.check_searches()
    of_range = isinstance(config.budgets, int) or any("%" in str(budget) for budget in config.budgets)
    first: tuple[str, Any] | None = None
    for name in config.supernets:
        recipe = config.recipe_of(name, config.seeds[0])
        data = images.of(recipe)
        space = pipeline.make_space(recipe, data)
        pipeline.check_recipe(recipe, space, data, fresh=fresh)
        cost = recipe.generator.budget
        alike: dict[str, Any] = {"superclasses": tuple(data.groups), "generator.budget": cost}
        alike |= {f"range of {cost}": recipe.cost_table(space, cost).range} if of_range else {}
        first = first or (name, alike)
        differ = [key for key, value in alike.items() if first[1].get(key) != value]
        if differ:
            hint = "; give the budgets as a list of amounts" if differ[0].startswith("range") else ""
            raise ConfigError(f"supernets {first[0]} and {name} have not the same {differ[0]}{hint}")


def _forget(folder: Path) -> None:
    """Remove what a study wrote there, and nothing else: the folder may be one that other things lie in."""
    for seed in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"seed-\d+", seed.name):
            shutil.rmtree(seed)
    for name in (JSON, MARKDOWN):
        (folder / name).unlink(missing_ok=True)


def _job(config: StudyConfig, name: str, seed: int, images: StudyImages, progress: bool) -> Job:
    job = Job.make(config, name, seed, images, progress=progress)
    if job.recipe.threads and config.workers == 1:
        torch.set_num_threads(job.recipe.threads)
    return job


def _threads(config: StudyConfig) -> int:
    """Of each job that is done beside others."""
    every = config.recipe_of(next(iter(config.supernets)), 0).threads or torch.get_num_threads()
    return max(1, every // config.workers)


def _on_gpu(config: StudyConfig, cluster: Cluster) -> bool:
    """Whether a job takes one of the cluster's GPUs."""
    device = config.recipe_of(next(iter(config.supernets)), 0).device
    return device == "cuda" or (device == "auto" and cluster.gpus > 0)


def _side_by_side(config: StudyConfig, submit: Callable[[str, int, bool], Future[None]], progress: bool) -> None:
    """Run all jobs in workers; what they give is kept on disk. Teachers come before the supernets that start from them.

    Args:
        config: the study.
        submit: begins the :func:`_work` of a supernet's name, a seed, and whether it is the teacher's.
        progress: whether to show a bar.
    """
    # by seed and teacher (none is one as well) the supernets that start from it
    of_teacher: dict[tuple[int, str | None], list[str]] = {}
    for seed in config.seeds:
        for name in config.supernets:
            alone = teacher_recipe(config.recipe_of(name, seed))
            folder = None if alone is None else teacher_folder(alone)
            of_teacher.setdefault((seed, folder), []).append(name)
    total = len(config.seeds) * len(config.supernets) + sum(folder is not None for _, folder in of_teacher)
    with progress_bar(config.name, total, shown=progress) as advance:
        after: dict[Future[None], list[tuple[str, int]]] = {}
        for (seed, folder), names in of_teacher.items():
            if folder is not None:
                after[submit(names[0], seed, True)] = [(name, seed) for name in names]
        for (seed, folder), names in of_teacher.items():
            if folder is None:
                after |= {submit(name, seed, False): [] for name in names}
        while after:
            done, _ = wait(after, return_when=FIRST_COMPLETED)
            for job in done:
                job.result()
                advance()
                after |= {submit(name, seed, False): [] for name, seed in after.pop(job)}


_worker_images: StudyImages | None = None


def _work(config: StudyConfig, name: str, seed: int, teacher: bool) -> None:
    """In a worker: train what a supernet starts from, or do all that is to be done with the supernet."""
    global _worker_images
    # what there is to say about the images was said before any worker began
    warnings.filterwarnings("ignore", category=UserWarning, module=r"snugnet\.")
    _worker_images = _worker_images or StudyImages(progress=False)
    job = _job(config, name, seed, _worker_images, progress=False)
    if teacher:
        train_teacher(job)
    else:
        find_outcomes(job)
