"""Networks at a few bits as files: packed weights, ONNX with eight and with four bits a number."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from snugnet.deploy.export import FileOptions, onnx_bytes
from snugnet.deploy.packing import packed, packed_state, unpacked, unpacked_state
from snugnet.deploy.sessions import onnx_session
from snugnet.errors import ConfigError
from snugnet.nn import Network
from snugnet.nn.network import build
from snugnet.nn.quantise import weight_codes
from snugnet.spaces import get_space
from snugnet.supernets import Supernet

SPACE = get_space(
    "resnet-mixed-precision", resolution=16, widths=[8, 8, 12, 16], stem_kernel=3, stem_stride=1, stem_pool=False,
    num_classes=10,
)  # fmt: skip


@given(bits=st.integers(1, 8), n=st.integers(0, 50), seed=st.integers(0, 1000))
def test_packing_and_back(bits: int, n: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, n).astype(np.uint8)
    content = packed(codes, bits)
    assert len(content) == -(-n * bits // 8)
    assert np.array_equal(unpacked(content, bits, n), codes)


def test_packed_numbers_of_another_length() -> None:
    with pytest.raises(ValueError, match="5 numbers of 2 bits take 2 bytes, got 3"):
        unpacked(bytes(3), 2, 5)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("scale", [0.0, 1e-13, 1e-3, 1.0, 30.0])
def test_weights_are_the_same_to_the_last_bit_after_packing(bits: int, scale: float) -> None:
    whole = network(3, [[bits, 8]])
    for module in whole.modules():
        if getattr(getattr(module, "layer", None), "weight_bits", 0):
            module.conv.weight.mul_(scale)
    state = whole.state_dict()
    back = unpacked_state(whole.blueprint, packed_state(whole.blueprint, state))
    for name in state:
        if name.endswith("conv.weight") and "block" in name:
            expected = weight_codes(state[name], bits).values
            assert torch.equal(weight_codes(back[name], bits).values, expected), name
        else:
            assert torch.equal(back[name], state[name])


def test_packing_by_hand() -> None:
    assert packed(np.array([1, 2, 3, 0, 1], np.uint8), 2) == bytes([0b00_11_10_01, 0b01])
    assert packed(np.array([0xA, 0x5, 0xF], np.uint8), 4) == bytes([0x5A, 0x0F])


def network(seed: int, bits: list[list[int]] | None = None) -> Network:
    space = SPACE if bits is None else SPACE.with_options(bits=bits)
    row = space.sample(1, np.random.default_rng(seed))
    made = Supernet(space, seed=seed).extract(row)
    made(torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(seed)))  # batch statistics
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("seed", range(4))
def test_a_packed_state_is_the_same_function(seed: int) -> None:
    whole = network(seed)
    content = packed_state(whole.blueprint, whole.state_dict())
    back = build(whole.blueprint, unpacked_state(whole.blueprint, content)).eval()
    for (name, a), (_, b) in zip(whole.named_modules(), back.named_modules(), strict=True):
        if bits := getattr(getattr(a, "layer", None), "weight_bits", 0):
            got, expected = weight_codes(b.conv.weight, bits), weight_codes(a.conv.weight, bits)
            assert torch.equal(got.codes, expected.codes), name
            assert torch.equal(got.offset, expected.offset)
    x = torch.randn(16, 3, 16, 16)
    assert torch.equal(whole(x), back(x))


def test_a_packed_state_takes_the_bits_that_it_says() -> None:
    whole = network(0)
    state = whole.state_dict()
    content = packed_state(whole.blueprint, state)
    layers = [layer for layer in whole.blueprint.layers() if layer.weight_bits]
    weights = [(layer.kernel**2 * layer.in_channels * layer.out_channels, layer.weight_bits) for layer in layers]
    assert sum(content[name].nbytes for name in content if name.endswith("conv.codes")) == sum(
        -(-n * bits // 8) for n, bits in weights
    )
    held = [sum(tensor.nbytes for tensor in each.values()) for each in (content, state)]
    assert held[1] - held[0] == sum(4 * n - -(-n * bits // 8) - 4 for n, bits in weights)


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize(("seed", "bits"), [(0, None), (1, None), (2, None), (3, [[8, 8]]), (4, [[5, 7], [8, 3]])])
def test_onnx_is_torchs_fake_quantised_network(opset: int, seed: int, bits: list[list[int]] | None) -> None:
    whole = network(seed, bits)
    content = onnx_bytes(whole, {}, FileOptions(opset=opset))
    x = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    (got,) = onnx_session(content).run(["logits"], {"image": x.numpy()})
    expected = whole(x)
    off = (torch.from_numpy(got) - expected).abs().amax(1) / expected.abs().max()
    assert off.median() < 1e-4  # a number between two levels may fall to either side, in a few images
    assert off.max() < 0.1


@pytest.mark.parametrize("opset", [17, 21])
def test_levels_in_the_file(opset: int) -> None:
    whole = network(1)
    model = onnx.load_from_string(onnx_bytes(whole, {}, FileOptions(opset=opset)))
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == ((17, 8) if opset == 17 else (21, 10))
    weights = {
        each.name.removesuffix(".weight.codes"): each for each in model.graph.initializer if "codes" in each.name
    }
    layers = {
        f"{block.name.replace('.', '_')}.{layer.name}": layer
        for block in whole.blueprint.blocks
        for layer in block.all_layers
        if layer.weight_bits
    }
    assert set(weights) == set(layers)
    for name, tensor in weights.items():
        values = numpy_helper.to_array(tensor).astype(int)
        bits = layers[name].weight_bits
        assert tensor.data_type == (TensorProto.UINT4 if opset == 21 else TensorProto.UINT8)
        assert values.shape == tuple(whole.get_submodule(name).conv.weight.shape)
        assert values.min() >= 0
        assert values.max() <= 2**bits - 1
    ops = [node.op_type for node in model.graph.node]
    assert ops.count("QuantizeLinear") == len(layers)
    assert ops.count("DequantizeLinear") == 2 * len(layers)


def test_an_opset_that_is_not_written() -> None:
    with pytest.raises(ConfigError, match="opset 14 to 21, got 22"):
        onnx_bytes(network(0), {}, FileOptions(opset=22))


def test_four_bits_make_a_smaller_file() -> None:
    whole = network(0)
    eight, four = (len(onnx_bytes(whole, {}, FileOptions(opset=opset))) for opset in (17, 21))
    codes = sum(
        layer.kernel**2 * layer.in_channels * layer.out_channels
        for layer in whole.blueprint.layers()
        if layer.weight_bits
    )
    assert eight - four > 0.45 * codes
