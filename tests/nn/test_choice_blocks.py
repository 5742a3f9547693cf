"""Alternatives with weights of their own at one position: in the supernet, under gates, in counts, files and pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from choice_space import ChoiceSpace
from torch import Tensor, nn
from under_gates import check_gradients, one_hot

from snugnet.costs import counted_table, sample
from snugnet.deploy import onnx_bytes
from snugnet.deploy.sessions import onnx_session
from snugnet.nn.gated import GatedSupernet
from snugnet.nn.gates import Encoding, num_gates, relax
from snugnet.plots import architecture_figure
from snugnet.supernets import Supernet

SPACE = ChoiceSpace.create()
ENCODINGS: list[Encoding] = ["single-path", "multi-path"]
RAW = np.stack(np.meshgrid(*map(np.arange, SPACE.num_options), indexing="ij"), -1).reshape(-1, SPACE.d).astype(np.int16)
ROWS = np.unique(SPACE.canonical(RAW), axis=0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def frozen(randomise: Callable[[nn.Module, int], None]) -> Supernet:
    supernet = Supernet(SPACE, seed=1).double().requires_grad_(False)
    randomise(supernet, 2)
    return supernet


def images(n: int) -> Tensor:
    return torch.randn(n, 3, 6, 6, dtype=torch.float64)


def test_the_supernet_holds_all_alternatives(frozen: Supernet) -> None:
    assert len(ROWS) == SPACE.size == (2 + 3) * (1 + 3 + 3 + 2)
    names = list(frozen.network.block_modules())
    assert names == [
        "stem", "down.k3", "down.k5", "down.xception", "flat.k3", "flat.k5", "flat.plain", "head",
    ]  # fmt: skip
    union = {block.key: {layer.name: layer for layer in block.all_layers} for block in SPACE.union.blocks}
    assert union["down.xception"]["depthwise2"].out_channels == 8
    assert union["flat.k5"]["project"].in_channels == 9
    for row in ROWS:
        blocks = SPACE.blueprint(row).blocks
        assert len({block.name for block in blocks}) == len(blocks)  # one alternative a position


def test_alternatives_that_differ_in_the_kernel_begin_as_one_function() -> None:
    supernet = Supernet(SPACE, seed=3).double()
    x, pairs = images(2), 0
    for row in ROWS:
        named = SPACE.to_dict(row)
        if named["flat.block"] == "k3":
            wide = SPACE.from_dict({**named, "flat.block": "k5"})[0]
            torch.testing.assert_close(supernet(x, wide), supernet(x, row))
            pairs += 1
    assert pairs == 15
    state = supernet.state_dict()
    kernel = state["network.flat_k5.depthwise.conv.weight"]
    assert torch.equal(kernel[..., 1:4, 1:4], state["network.flat_k3.depthwise.conv.weight"])
    assert kernel[..., 1:4, 1:4].abs().sum() == kernel.abs().sum() > 0


@pytest.mark.parametrize("training", [False, True])
def test_a_run_is_that_of_the_extracted_network(frozen: Supernet, training: bool) -> None:
    frozen.train(training)
    x, state = images(4), {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    for row in ROWS:
        network = frozen.extract(row)
        assert network.blueprint == SPACE.blueprint(row)
        assert torch.equal(frozen(x, row), network(x))
        frozen.load_state_dict(state)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_hard_gates_give_each_sub_network(frozen: Supernet, encoding: Encoding) -> None:
    frozen.train()
    gated = GatedSupernet(SPACE, frozen.network)
    for rows in (ROWS, RAW, RAW[-1:]):  # every architecture in one pass, canonical or not
        x = images(3 * len(rows)).unflatten(0, (3, len(rows)))
        out = gated(x, one_hot(SPACE, rows), encoding)
        state = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
        for p, row in enumerate(rows):
            torch.testing.assert_close(out[:, p], frozen(x[:, p], row), rtol=1e-10, atol=1e-10)
        frozen.load_state_dict(state)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("hard", [False, True])
def test_gradients_against_finite_differences(frozen: Supernet, encoding: Encoding, hard: bool) -> None:
    rows = SPACE.sample(3, np.random.default_rng(3)) if hard else None
    check_gradients(GatedSupernet(SPACE, frozen.network), images(12).unflatten(0, (4, 3)), encoding, rows)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_alternative_that_nobody_chose_says_what_it_would_bring(frozen: Supernet, encoding: Encoding) -> None:
    """Its gate's gradient is the output's gradient times the alternative's own output."""
    row = SPACE.from_choices({"down.block": "k5", "flat.block": "plain", "flat.kernel": 3})
    points = [point.requires_grad_() for point in one_hot(SPACE, row)]
    x = images(4)
    GatedSupernet(SPACE, frozen.network)(x[:, None], points, encoding).square().sum().backward()
    column = SPACE.column["flat.block"]
    for option, operation in enumerate(("skip", "k3", "k5", "plain")):
        frozen.train()
        network = frozen.extract(row)
        modules = network.block_modules()
        other = SPACE.from_choices({"down.block": "k5", "flat.block": operation, "flat.scale": 0.5, "flat.kernel": 3})
        middle = modules["down.k5"](modules["stem"](x))
        chosen = modules["flat.plain"](middle).detach().requires_grad_()
        modules["head"](chosen).square().sum().backward()
        alternative = frozen.extract(other).block_modules().get(f"flat.{operation}")
        brought = middle if alternative is None else alternative(middle)
        assert points[column].grad[0, option].item() == pytest.approx((chosen.grad * brought).sum().item(), rel=1e-6)


def test_weights_off_the_path_get_no_gradient() -> None:
    supernet = Supernet(SPACE, seed=1).train()
    row = SPACE.from_choices({"down.block": "xception", "down.mid": 5, "flat.block": "k3", "flat.scale": 1.0})
    supernet(images(4).float(), row).square().sum().backward()
    got = {name for name, module in supernet.network.block_modules().items() if has_gradient(module)}
    assert got == {"stem", "down.xception", "flat.k3", "head"}
    depthwise = supernet.network.block_modules()["down.xception"]._modules["depthwise2"]
    assert isinstance(depthwise, nn.Module)
    gradient = depthwise.conv.weight.grad
    assert (gradient[:5] != 0).any()
    assert (gradient[5:] == 0).all()


def has_gradient(module: nn.Module) -> bool:
    found = {parameter.grad is not None for parameter in module.parameters()}
    assert len(found) == 1
    return found.pop()


def test_a_step_remembers_what_the_static_network_does() -> None:
    """Activations kept for the backward pass, in bytes: of the path alone, however many alternatives there are."""
    supernet = Supernet(SPACE, seed=1).train()
    x = images(16).float()
    for row in ROWS[::5]:
        network = supernet.extract(row)
        assert kept_bytes(supernet, lambda row=row: supernet(x, row)) == kept_bytes(network, lambda n=network: n(x))


def kept_bytes(module: nn.Module, run: Callable[[], Tensor]) -> int:
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run().sum().backward()
    return sum(kept.values())


@pytest.mark.parametrize("count", ["madds", "params"])
def test_costs_are_the_blueprints(count: str) -> None:
    costs = counted_table(SPACE, count)(ROWS)
    assert costs.tolist() == [getattr(SPACE.blueprint(row), count) for row in ROWS]
    if count == "params":
        supernet = Supernet(SPACE)
        assert costs.tolist() == [sum(p.numel() for p in supernet.extract(row).parameters()) for row in ROWS]


def test_a_limit_is_drawn_under_and_searched_exactly() -> None:
    table = counted_table(SPACE, "madds")
    limit = float(np.median(table(ROWS)))
    drawn = sample(table, 2000, np.random.default_rng(0), limit)
    assert len(np.unique(drawn, axis=0)) == (table(ROWS) <= limit).sum()  # each of them, and none above


def test_onnx_runtime_gives_torchs_logits(randomise: Callable[[nn.Module, int], None]) -> None:
    supernet = Supernet(SPACE, seed=1).eval().requires_grad_(False)
    randomise(supernet, 2)
    x = images(3).float()
    for row in ROWS:
        network = supernet.extract(row)
        (got,) = onnx_session(onnx_bytes(network, {})).run(["logits"], {"image": x.numpy()})
        expected = network(x).detach().numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_pictures_have_one_column_a_position() -> None:
    made = architecture_figure(SPACE, {str(row.tolist()): row for row in ROWS[:6]}, "alternatives")
    assert made.startswith(b"\x89PNG")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_logits_of_a_generator_reach_every_gate(frozen: Supernet, encoding: Encoding) -> None:
    logits = torch.randn(32, sum(num_gates(SPACE, encoding)), dtype=torch.float64, requires_grad=True)
    x = images(3 * 32).unflatten(0, (3, 32))
    out = GatedSupernet(SPACE, frozen.network)(x, relax(logits, SPACE, encoding, 1.0), encoding)
    out.square().sum().backward()
    assert (logits.grad != 0).any(0).all()
    assert all(parameter.grad is None for parameter in frozen.parameters())


def test_the_printed_network_names_its_alternatives() -> None:
    row = SPACE.from_choices({"down.block": "k3", "flat.block": "k5", "flat.scale": 1.5})
    assert "flat.k5 (+ input)" in str(SPACE.blueprint(row)).splitlines()
