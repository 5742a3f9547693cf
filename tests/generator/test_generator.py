"""The architecture generator: shapes, budgets between embeddings, and a place of its own for every gate."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_spaces import TINY_SPACES
from torch import Tensor

from snugnet.errors import ConfigError
from snugnet.generator.model import ArchitectureGenerator
from snugnet.nn.gates import Encoding, num_gates, option_scores, relax
from snugnet.spaces import SearchSpace, get_space

ENCODINGS: list[Encoding] = ["single-path", "multi-path"]
SPACES = {
    "usual": get_space("ofa-mobilenet-v3", width_mult=0.1, resolution=16),
    "lopsided": get_space("ofa-mobilenet-v3", depths=(1, 2, 3, 5), kernel_sizes=(3,), expand_ratios=(3, 6)),
    **{name: get_space(name, **options) for name, options in TINY_SPACES.items()},
}
ONE = get_space("ofa-mobilenet-v3", width_mult=0.1, depths=(1,), kernel_sizes=(3,), expand_ratios=(3,))


def made(space: SearchSpace = SPACES["usual"], groups: int = 3, **options: object) -> ArchitectureGenerator:
    return ArchitectureGenerator(space, groups, 100.0, 500.0, **{"budgets": 5, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("n", [1, 4])
def test_shapes(space: SearchSpace, encoding: Encoding, n: int) -> None:
    generator = made(space, encoding=encoding)
    logits = generator(torch.eye(3)[torch.arange(n) % 3], torch.linspace(100, 500, n))
    assert logits.shape == (n, sum(num_gates(space, encoding)))
    scores = generator.scores(torch.eye(3)[torch.arange(n) % 3], torch.linspace(100, 500, n))
    assert scores.shape == (n, sum(len(choice.options) for choice in space.choices))
    assert not scores.requires_grad
    torch.testing.assert_close(scores, option_scores(logits, space, encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_gate_reads_a_place_of_its_own(space: SearchSpace, encoding: Encoding) -> None:
    """Followed by gradients: one unit, of the head of the choice's kind, at the layer that the gate belongs to."""
    generator = made(space, encoding=encoding)
    outputs: dict[str, Tensor] = {}

    for kind, head in generator.heads.items():

        def hook(_module: object, _inputs: object, out: Tensor, kind: str = kind) -> None:
            out.retain_grad()
            outputs[kind] = out

        head.register_forward_hook(hook)
    logits = generator(torch.eye(3)[:1], torch.tensor([222.0]))
    taken = set()
    gate = 0
    for choice, gates in zip(space.choices, num_gates(space, encoding), strict=True):
        units = []
        for i in range(gates):
            for out in outputs.values():
                out.grad = None
            logits[0, gate].backward(retain_graph=True)
            places = [
                (kind, *place) for kind, out in outputs.items() if out.grad is not None
                for place in out.grad[0].nonzero().tolist()
            ]  # fmt: skip
            assert len(places) == 1
            kind, layer, unit = places[0]
            assert kind == choice.kind
            if encoding == "single-path":
                assert layer == choice.layers[i]
            elif choice.layers:
                assert layer == min(choice.layers)
            units.append(unit)
            taken.add(places[0])
            gate += 1
    assert len(taken) == gate == logits.shape[1]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_space_of_one_architecture(encoding: Encoding) -> None:
    """There is nothing to choose, but nothing fails either: every score is the certain one, every gradient is zero."""
    assert ONE.size == 1
    generator = made(ONE, encoding=encoding)
    logits = generator(torch.eye(3), torch.tensor([100.0, 200, 300]))
    assert logits.shape == (3, sum(num_gates(ONE, encoding)))
    drawn = relax(logits, ONE, encoding, 1.0)
    assert all(torch.equal(each, torch.ones(3, 1)) for each in drawn)
    sum(each.sum() for each in drawn).backward()
    assert all(p.grad is None or not p.grad.any() for p in generator.parameters())
    assert not generator.scores(torch.eye(3), torch.tensor([100.0, 200, 300])).any()


def test_an_unknown_encoding() -> None:
    with pytest.raises(ConfigError, match="unknown encoding 'both'; known: single-path, multi-path"):
        made(encoding="both")


def test_budgets_at_the_embeddings_between_them_and_outside() -> None:
    generator = made().double()
    table = generator.budget_embedding
    at = generator.embed_budget(torch.tensor([100.0, 200, 300, 400, 500], dtype=torch.float64))
    torch.testing.assert_close(at, table.data, check_device=False)
    for k in range(4):
        for weight in (0.1, 0.5, 0.9):
            got = generator.embed_budget(torch.tensor([100.0 * (k + 1 + weight)], dtype=torch.float64))[0]
            torch.testing.assert_close(got, (1 - weight) * table[k] + weight * table[k + 1])
    outside = generator.embed_budget(torch.tensor([-1e9, 0, 99, 501, 1e12], dtype=torch.float64))
    torch.testing.assert_close(outside, table[[0, 0, 0, 4, 4]])


@pytest.mark.parametrize("budgets", [1, 2])
def test_few_budgets(budgets: int) -> None:
    generator = made(budgets=budgets)
    ends = generator.embed_budget(torch.tensor([100.0, 500.0]))
    torch.testing.assert_close(ends, generator.budget_embedding[[0, budgets - 1]])


def test_a_range_of_one_budget() -> None:
    generator = ArchitectureGenerator(SPACES["usual"], 2, 300.0, 300.0)
    assert generator(torch.eye(2), torch.tensor([300.0, 300.0])).isfinite().all()


def test_real_budgets_keep_their_precision() -> None:
    """Half a thousand million multiply-adds in float32."""
    generator = ArchitectureGenerator(SPACES["usual"], 1, 121_278_672.0, 566_170_656.0, budgets=10)
    budgets = torch.linspace(121_278_672, 566_170_656, 10, dtype=torch.float64)
    torch.testing.assert_close(generator.embed_budget(budgets), generator.budget_embedding.data, atol=1e-5, rtol=0)


def test_mixtures_of_superclasses_and_rows_apart() -> None:
    generator = made().double()
    budgets = torch.tensor([150.0, 250, 350], dtype=torch.float64)
    groups = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0.5, 0.25, 0.25]], dtype=torch.float64)
    together = generator(groups, budgets)
    for i in range(3):
        torch.testing.assert_close(generator(groups[i : i + 1], budgets[i : i + 1])[0], together[i])
    assert not torch.allclose(generator(groups, budgets.flip(0)), together)
    assert not torch.allclose(generator(groups.flip(0), budgets), together)
    # a mixture is the embedding of the mixed weights
    other = copy.deepcopy(generator)
    with torch.no_grad():
        other.group_embedding[0] = groups[2] @ generator.group_embedding
    torch.testing.assert_close(other(groups[:1], budgets[2:])[0], together[2])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_gradients_reach_every_parameter(space: SearchSpace, encoding: Encoding) -> None:
    generator = made(space, encoding=encoding)
    logits = generator(torch.eye(3).repeat(5, 1), torch.linspace(100, 500, 15))
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
        if name.startswith("heads"):  # a unit that no layer reads has no gradient: there is none
            assert (rows != 0).any(1).all(), name
        assert (rows != 0).any(), name
        if name.endswith("embedding"):
            assert (rows != 0).any(1).all(), name


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first, second, third = made(seed=1), made(seed=1), made(seed=2)
    assert torch.equal(torch.rand(3), expected)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
        assert not torch.equal(tensor, third.state_dict()[name]), name


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_options_make_it_again(encoding: Encoding) -> None:
    generator = made(SPACES["lopsided"], encoding=encoding, hidden_size=16, embedding_size=8)
    again = ArchitectureGenerator(SPACES["lopsided"], seed=9, **generator.options)
    again.load_state_dict(generator.state_dict())
    arguments = torch.eye(3), torch.tensor([120.0, 260, 480])
    assert torch.equal(again(*arguments), generator(*arguments))
    assert not any("index" in name for name in generator.state_dict())
