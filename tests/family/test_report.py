"""A report's numbers are those of the networks as they are handed out."""

from __future__ import annotations

import math

import pytest
import torch

from snugnet.data import GroupedImages
from snugnet.family import Family, evaluate, report
from snugnet.nn.network import with_classes
from snugnet.training.calibration import accuracy


@torch.no_grad()
def test_specialised_logits_are_columns_of_the_whole_network_s(family: Family, digits: GroupedImages) -> None:
    for group in (*family.groups, ["7", "0", "3"]):
        net = family.specialize(group, madds="40%")
        whole = family.build(net.row)
        images, _ = next(iter(family.batches(digits.test, range(10), net.blueprint.resolution)))
        own, logits = net.module(images), whole(images)[:, list(net.class_indices)]
        torch.testing.assert_close(own, logits, rtol=1e-5, atol=1e-5 * float(logits.abs().max()))
        cut = with_classes(whole, net.class_indices)
        assert cut.blueprint == net.module.blueprint
        state, expected = cut.state_dict(), net.module.state_dict()
        assert all(torch.allclose(state.pop(name), tensor, rtol=1e-5, atol=1e-6) for name, tensor in expected.items())
        assert not state


def test_a_report_has_the_accuracies_of_networks_built_one_by_one(family: Family, digits: GroupedImages) -> None:
    everything = range(len(family.classes))
    for row in evaluate(family, digits.test, ["20%", "60%"], progress=False).rows:
        net = family.network(row.group, family.space.from_dict(row.arch))
        own, size = digits.test.of_classes(net.class_indices), net.blueprint.resolution
        alone = accuracy(net.module, family.batches(own, net.class_indices, size))
        whole = accuracy(family.build(net.row), family.batches(own, everything, size))
        assert row.images == len(own)
        assert abs(row.accuracy - alone) * len(own) < 1.001
        assert abs(row.accuracy_all - whole) * len(own) < 1.001


def test_each_network_is_built_once(family: Family, digits: GroupedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = [], Family.build
    monkeypatch.setattr(Family, "build", lambda *given: built.append(given) or build(*given))
    assert len(evaluate(family, digits.test, 2, progress=False).rows) == len(built)


def test_a_group_without_test_images_has_no_accuracy(family: Family, digits: GroupedImages) -> None:
    test = digits.test.of_classes(family.class_indices("round"))
    found = evaluate(family, test, 1, progress=False)
    assert [math.isnan(row.accuracy) for row in found.rows] == [row.group != "round" for row in found.rows]
    assert not math.isnan(found.mean()[0]["accuracy"])
    assert report.check_groups(family) == list(family.groups)
