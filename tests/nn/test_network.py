"""Static networks: what the blueprint says is what is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snugnet.errors import SpaceError
from snugnet.nn import Network, build, initialise, module_name
from snugnet.nn.layers import ConvLayer, SELayer
from snugnet.spaces import Blueprint, SearchSpace, get_space


def space_of(resolution: int = 17, stem_stride: int = 1, **options: object) -> SearchSpace:
    made = {"width_mult": 0.1, "num_classes": 5, "stage_strides": (2, 1, 2, 1, 2), **options}
    return get_space("ofa-mobilenet-v3", resolution=resolution, stem_stride=stem_stride, **made)


SPACE = space_of()
ROWS = st.tuples(*(st.integers(0, len(choice.options) - 1) for choice in SPACE.choices))


def trainable(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def check_sizes(blueprint: Blueprint, batch: int = 1) -> None:
    """Every layer's real output against its description."""
    network = build(blueprint).eval()
    seen = []
    for block in blueprint.blocks:
        module = network.block_modules()[block.name]
        for layer in block.layers:

            def hook(_module: object, _inputs: object, out: torch.Tensor, layer: object = layer) -> None:
                size = layer.out_resolution
                expected = (layer.out_channels,) if out.ndim == 2 else (layer.out_channels, size, size)
                assert tuple(out.shape[1:]) == expected, layer
                assert out[0].numel() == layer.activations
                seen.append(layer)

            module.layer_modules()[layer.name].register_forward_hook(hook)
    x = torch.randn(batch, blueprint.in_channels, blueprint.resolution, blueprint.resolution)
    assert network(x).shape == (batch, blueprint.num_classes)
    assert seen == list(blueprint.layers())


@settings(max_examples=25)
@given(ROWS)
def test_params_are_those_of_the_blueprint(row: tuple[int, ...]) -> None:
    blueprint = SPACE.blueprint(row)
    assert trainable(build(blueprint)) == blueprint.params


@pytest.mark.parametrize("resolution", [1, 2, 15, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_every_output_has_the_size_that_the_blueprint_says(resolution: int, stem_stride: int) -> None:
    space = space_of(resolution, stem_stride, in_channels=1 + resolution % 3)
    for arch in (space.smallest, space.largest):
        check_sizes(space.blueprint(arch))


def test_the_published_networks_have_their_published_params(shared_folder: Path) -> None:
    published = json.loads((shared_folder / "data" / "ofa-mobilenet-v3" / "specialized_nets.json").read_text())
    networks = published if isinstance(published, list) else list(published.values())
    assert len(networks) == 17
    for content in networks:
        config = content.get("config", content)
        space = get_space(
            "ofa-mobilenet-v3", width_mult=config["width_mult"], resolution=config["resolution"], num_classes=1000
        )
        blueprint = space.blueprint(space.from_dict(config))
        with torch.device("meta"):
            assert trainable(Network(blueprint)) == blueprint.params


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    blueprint = SPACE.blueprint(SPACE.smallest)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first, second, third = build(blueprint, seed=1), build(blueprint, seed=1), build(blueprint, seed=2)
    assert torch.equal(torch.rand(3), expected)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert not torch.equal(first.stem.conv.conv.weight, third.stem.conv.conv.weight)
    initialise(third, 1)
    assert torch.equal(first.stem.conv.conv.weight, third.stem.conv.conv.weight)


def test_fresh_weights() -> None:
    """He normal over the fan-out, batch norm neutral, biases zero, nothing left of the memory below."""
    network = build(space_of(width_mult=1.0).blueprint(space_of(width_mult=1.0).largest))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
            assert (module.running_mean == 0).all()
            assert (module.running_var == 1).all()
            assert module.num_batches_tracked == 0
        elif isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 5000:
            fan_out = module.weight.shape[0] * module.weight[0, 0].numel() // module.groups
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
            assert module.bias is None or (module.bias == 0).all()


def test_given_weights_are_taken_as_they_are() -> None:
    blueprint = SPACE.blueprint(SPACE.smallest)
    state = build(blueprint).state_dict()
    network = build(blueprint, state)
    for name, tensor in network.state_dict().items():
        assert tensor.data_ptr() == state[name].data_ptr(), name
    assert all(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(SpaceError, match="do not fit"):
        build(SPACE.blueprint(SPACE.largest), state)
    with pytest.raises(SpaceError, match="has no"):
        build(blueprint, {**state, "stem.conv.conv.extra": torch.zeros(1)})


def test_networks_share_no_hooks() -> None:
    """Blocks are copied from one template: what is hung onto one network must not show in another."""
    one, other = (build(SPACE.blueprint(SPACE.smallest)) for _ in range(2))
    calls: list[str] = []
    next(one.children()).register_forward_hook(lambda *_: calls.append("one"))
    next(one.modules()).train(False)
    other(torch.zeros(2, SPACE.in_channels, SPACE.resolution, SPACE.resolution))
    assert not calls
    assert other.training
    assert not {id(m) for m in one.modules()} & {id(m) for m in other.modules()}


def test_names_and_order_follow_the_blueprint() -> None:
    blueprint = SPACE.blueprint(SPACE.centroid)
    network = build(blueprint)
    assert list(network.block_modules()) == [block.name for block in blueprint.blocks]
    assert [name for name, _ in network.named_children()] == [module_name(block) for block in blueprint.blocks]
    convolutions = sum(isinstance(m, ConvLayer) for m in network.modules())
    assert convolutions == sum(layer.op == "conv" for layer in blueprint.layers())
    assert sum(isinstance(m, SELayer) for m in network.modules()) == sum(la.op == "se" for la in blueprint.layers())
