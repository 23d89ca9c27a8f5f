"""Weights in int8: their rounding, the products with them, and a model that has them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DiaConfig, DiaForConditionalGeneration

from dia_server.engine.dia import cpu_ops, linear
from dia_server.engine.dia.assemble import assemble, weight_bytes
from dia_server.engine.dia.linear import INT8_ROWS, Linear, pack_int8, quantize
from dia_server.engine.dia.model import DiaModel
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.products import dequantize, plain_product
from dia_server.engine.types import Utterance

from . import reference
from .drive import CodesAsAudio, drive, frames_of, weights_of
from .tiny import tiny_dia

INT8 = ("self_attention.o_proj", "cross_attention.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
"""Weights of the decoder that are stored in int8."""


def weight(rows: int = 96, columns: int = 200) -> Tensor:
    """Return a random weight, with rows of very different sizes, one of which is zero."""
    made = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    made[0] = 0.0
    made[1] *= 1e-6
    made[2] *= 1e4
    return made


def activations(rows: int, columns: int = 200) -> Tensor:
    """Return random activations of which a few are 30 times as large, as in a trained model."""
    made = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    made[:, ::50] *= 30
    return made


def test_a_weight_is_rounded_by_at_most_half_a_step() -> None:
    original = weight()

    values, scale = quantize(original)

    assert values.dtype == torch.int8
    assert values[1:].abs().amax(1).eq(127).all()
    wrong = (original.double() - values.double() * scale.double()[:, None]).abs()
    assert (wrong <= scale.double()[:, None] * (0.5 + 1e-5)).all()


INTEGERS = (
    pytest.param(
        "vnni", marks=pytest.mark.skipif(not cpu_ops.multiplies_bytes(), reason="needs AVX-512's VNNI")
    ),
    pytest.param("onednn", marks=pytest.mark.skipif(not linear.FBGEMM, reason="needs AVX2")),
)
"""Products that are sums of integers."""


def product_by(path: str, monkeypatch: pytest.MonkeyPatch, rows: int = 96, columns: int = 200) -> Linear:
    """Return the product with a weight as CPUs with VNNI, other CPUs and other devices compute it."""
    values, scale = quantize(weight(rows, columns))
    if path == "dequantizing":
        return Linear(plain_product, values, scale)
    monkeypatch.setattr(cpu_ops, "multiplies_bytes", lambda: path == "vnni")
    return pack_int8(values, scale)


def rounded(x: Tensor) -> Tensor:
    """Return fp32 activations with each 32 of a row rounded to 8 bits, as VNNI's product rounds them."""
    groups = F.pad(x, (0, -x.shape[-1] % 32)).view(len(x), -1, 32)
    largest = groups.abs().amax(-1, keepdim=True)
    return ((groups * (127 / largest)).round() * (largest / 127)).flatten(1)[:, : x.shape[-1]]


@pytest.mark.parametrize("path", [*INTEGERS, "dequantizing"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("rows", [1, 3, 16, INT8_ROWS, INT8_ROWS + 1])
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 200), (90, 198)])
def test_products_equal_those_of_the_dequantized_weight(
    path: str,
    dtype: torch.dtype,
    tolerance: float,
    rows: int,
    outputs: int,
    inputs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = activations(rows, inputs).to(dtype)

    product = product_by(path, monkeypatch, outputs, inputs)(x[None])

    assert (product.dtype, product.shape) == (dtype, (1, rows, outputs))
    values, scale = quantize(weight(outputs, inputs))

    def error(x: Tensor) -> float:
        """Return the relative error of `product`, with each output at its own scale."""
        expected = x.double() @ dequantize(values, scale, torch.float64).t() / scale.double()
        return float((product[0].double() / scale.double() - expected).norm() / expected.norm())

    if path == "vnni":
        assert error(rounded(x.float())) < (1e-6 if dtype == torch.float32 else 4e-3)
        tolerance = 1.5e-2  # most of the groups have a number that is 30 times as large as the others
    assert error(x) < tolerance


@pytest.mark.parametrize("path", INTEGERS)
def test_a_row_does_not_depend_on_the_others(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    product, x = product_by(path, monkeypatch), activations(16)
    x[3] = torch.nan
    x[4] = torch.inf

    together = product(x)

    assert not together[3:5].isfinite().any()
    for row in (0, 1, 2, 5, 15):
        assert torch.equal(product(x[row : row + 1])[0], together[row])


@pytest.mark.skipif(not cpu_ops.multiplies_bytes(), reason="needs AVX-512's VNNI")
def test_threads_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    product, x = product_by("vnni", monkeypatch), activations(16)
    alone = product(x)
    monkeypatch.setattr(cpu_ops, "ELEMENTS_PER_THREAD", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)

    assert torch.equal(product(x), alone)


def test_a_model_in_int8_equals_transformers_with_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """With products that are exact but for fp32's rounding; those of CPUs round x."""
    monkeypatch.setattr(linear, "FBGEMM", False)
    monkeypatch.setattr(cpu_ops, "multiplies_bytes", lambda: False)
    dia = tiny_dia(ends=False)
    text = "A text of a few words."
    asked = Utterance(text, "", seed=0, temperature=0.0, cfg_scale=3.0, top_k=45, max_tokens=32)
    model = DiaModel(weights_of(dia, int8=True), CodesAsAudio(), slots=1)

    made = frames_of(drive(model, [asked])[0])

    dequantized = tiny_dia(ends=False)
    for name, parameter in dequantized.named_parameters():
        if "decoder" in name and any(part in name for part in INT8):
            parameter.copy_(dequantize(*quantize(parameter), torch.float32))
    nothing = torch.empty(0, 9, dtype=torch.long)
    [columns] = reference.generate(
        dequantized, [text.encode()], nothing[None], max_tokens=32, cfg_scale=3.0, top_k=45
    )
    assert torch.equal(made, reference.frames_of(columns, nothing))
    assert len(made) == 16


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_bytes_expected_before_loading_are_those_of_the_weights(dtype: torch.dtype, int8: bool) -> None:
    with torch.device("meta"):
        tensors = DiaForConditionalGeneration(DiaConfig()).state_dict()
    shape = ModelConfig.of(DiaConfig())

    weights = assemble(shape, tensors.__getitem__, device=torch.device("meta"), dtype=dtype, int8=int8)

    elements = sum(tensor.numel() for tensor in tensors.values())
    expected = weight_bytes(shape, elements, dtype, int8=int8)
    assert expected == pytest.approx(weights.bytes, rel=1e-4)
