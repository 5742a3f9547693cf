"""Accuracies of the scorer are those of the networks as they are handed out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snugnet.errors import SearchError
from snugnet.family import Family
from snugnet.family.search import FamilySearch, search_family
from snugnet.nn.network import resized
from snugnet.search.image_scorer import ImageScorer
from snugnet.search.method import make_method
from snugnet.training.calibration import accuracy


def scorer_of(family: Family, groups: list[tuple[int, ...]], **options: int) -> ImageScorer:
    return ImageScorer(
        family.supernet, family.calibration_batches, family.validation, groups, family.mean, family.std, **options
    )


def test_equals_the_unfolded_network_to_within_one_image(family: Family) -> None:
    groups = [family.class_indices(name) for name in family.groups]
    rows = family.space.sample(4, np.random.default_rng(0))
    scorer = scorer_of(family, groups)
    found = scorer.accuracies(rows)
    for row, accuracies in zip(rows, found, strict=True):
        for classes, value in zip(groups, accuracies, strict=True):
            images = family.validation.of_classes(classes)
            expected = accuracy(family.build(row, classes), family.batches(images, classes, family.space.resolution))
            assert abs(value - expected) * len(images) < 1.001
    assert found.max() > 0.6  # the family has learned something: the comparison is not one of guesses
    together = scorer(rows)
    assert np.allclose(together[:, 0], found.mean(1))
    assert np.array_equal(together[:, 1:], found)
    assert scorer.accuracies(rows[:0]).shape == (0, len(groups))


def test_does_not_depend_on_the_batch(family: Family) -> None:
    classes = [family.class_indices(next(iter(family.groups)))]
    rows = family.space.sample(2, np.random.default_rng(1))
    images = len(family.validation.of_classes(classes[0]))
    difference = scorer_of(family, classes, batch=7).accuracies(rows) - scorer_of(family, classes).accuracies(rows)
    assert np.abs(difference).max() * images < 1.001


def test_the_supernet_is_left_alone(family: Family) -> None:
    before = {name: tensor.clone() for name, tensor in family.supernet.state_dict().items()}
    scorer_of(family, [tuple(range(10))])(family.space.largest)
    assert all(torch.equal(tensor, before[name]) for name, tensor in family.supernet.state_dict().items())


def test_images_are_resized_only_where_that_changes_something() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert resized(images, 8) is images
    smaller = resized(torch.full((2, 3, 8, 8), 0.5), 5)
    assert smaller.shape == (2, 3, 5, 5)
    assert torch.allclose(smaller, torch.tensor(0.5))


def test_a_group_without_images(family: Family) -> None:
    empty = family.validation.of_classes([0, 1])
    with pytest.raises(SearchError, match="no validation images"):
        ImageScorer(family.supernet, family.calibration_batches, empty, [(2, 3)], family.mean, family.std)


def test_search_under_a_budget_from_python(family: Family) -> None:
    name = next(iter(family.groups))
    low, high = family.cost_range("madds", name)
    limit = (low + high) / 2
    done = search_family(
        family, "evolution", group=name, budgets={"madds": limit}, population=4, rounds=2, seed=1, progress=False
    )
    network = done.network()
    assert network.costs == done.winners()[0]["costs"]
    assert network.costs["madds"] <= limit
    assert network.module.blueprint.madds == network.costs["madds"]
    images = len(family.validation.of_classes(network.class_indices))
    assert abs(family.validation_accuracy(network) - done.result.score) * images < 1.001


def test_generated_architectures_meet_the_limits_of_every_superclass(family: Family) -> None:
    low, high = family.cost_range("madds", max(family.groups, key=lambda name: len(family.groups[name])))
    search = FamilySearch.make(family, None, madds=low + 0.3 * (high - low))
    rows = search.problem.propose(10, np.random.default_rng(0))
    assert search.problem.feasible(rows).all()
    with pytest.raises(SearchError, match="no single network"):
        search.run(make_method("generator", {"evaluations": 2}), progress=False).network()


def test_what_another_generator_found_is_not_given_again(family: Family, tmp_path: Path) -> None:
    def found() -> dict[str, Any]:
        return search_family(
            family, "generator", group="round", folder=tmp_path, evaluations=2, progress=False
        ).to_json()

    first = found()
    assert found()["winners"] == first["winners"]
    parameter = family.generator.budget_embedding
    kept = parameter.detach().clone()
    try:
        with torch.no_grad():
            parameter += 1
        with pytest.raises(SearchError, match=r"another search.*settings"):
            found()
    finally:
        with torch.no_grad():
            parameter.copy_(kept)
    assert found()["winners"] == first["winners"]


def test_candidates_side_by_side_are_judged_alike_and_the_threads_are_given_back(family: Family) -> None:
    groups = [family.class_indices(name) for name in family.groups]
    rows = family.space.sample(5, np.random.default_rng(2))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(scorer_of(family, groups).accuracies(rows))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    fewest = min(len(family.validation.of_classes(classes)) for classes in groups)
    assert np.abs(found[1] - found[0]).max() * fewest < 1.001
    assert np.abs(found[2] - found[0]).max() * fewest < 1.001
