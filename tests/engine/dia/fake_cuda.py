"""Lowers the decode step for CUDA on a machine without a GPU, and counts its kernel launches.

Inductor compiles the engine's own `step` at the real sizes, on fake tensors, up to the code that would launch
the kernels. It runs in a process of its own, because it replaces parts of torch:

    python -m tests.engine.dia.fake_cuda BATCH LAYERS...

It prints, for each number of layers, the launches of a step, those of a layer, and the elements of the step's
largest buffer, as JSON.
"""

import json
import re
import sys
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch._inductor.config as inductor_config
from torch import Tensor
from torch._dynamo.device_interface import CudaInterface
from torch._inductor.fx_passes import pad_mm
from torch._inductor.graph import GraphLowering
from torch._subclasses import fake_tensor
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DiaConfig, DiaForConditionalGeneration
from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped]
from triton.runtime.driver import driver  # type: ignore[import-untyped]

from dia_server.engine.dia import kernels
from dia_server.engine.dia.assemble import assemble
from dia_server.engine.dia.attention import fused_cross_attention, fused_self_attention
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.products import ROWS, fused_product, new_arrivals
from dia_server.engine.dia.state import State, new_state
from dia_server.engine.dia.step_ops import fused_commit
from dia_server.engine.dia.step_runners import any_size, compiled_step
from dia_server.engine.dia.weights import Weights

SLOTS = 64
TOPK = 3
"""Maximum launches of `torch.topk`: it selects, then sorts."""
DEVICE = torch.device("cuda", 0)


class Properties(NamedTuple):
    """Properties of an H200 that inductor asks for."""

    name: str = "fake"
    major: int = 9
    minor: int = 0
    multi_processor_count: int = 132
    total_memory: int = 140 << 30
    max_threads_per_multi_processor: int = 2048
    max_threads_per_block: int = 1024
    regs_per_multiprocessor: int = 65536
    warp_size: int = 32
    shared_memory_per_block: int = 48 << 10
    shared_memory_per_block_optin: int = 227 << 10
    shared_memory_per_multiprocessor: int = 228 << 10
    L2_cache_size: int = 50 << 20
    gcnArchName: str = ""


class FakeDriver:
    """Triton's driver for a GPU that is not there."""

    @staticmethod
    def is_active() -> bool:
        return True

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return DEVICE


class Generated(Exception):
    """Ends a compilation with the code that inductor generated."""


def pretend() -> None:
    """Make torch, inductor and Triton believe that there is one H200; for the rest of the process."""
    values: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_properties": Properties(),
        "get_device_capability": (9, 0),
        "is_bf16_supported": True,
        "synchronize": None,
        "set_device": None,
        "_lazy_init": None,
        "_exchange_device": 0,
        "_maybe_exchange_device": 0,
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": None,
    }
    for name, value in values.items():
        setattr(torch.cuda, name, always(value))
    of_interface = {
        "is_available": True,
        "current_device": 0,
        "synchronize": None,
        "get_device_properties": Properties(),
        "get_compute_capability": 90,
        "is_triton_capable": True,
        "raise_if_triton_unavailable": None,
    }
    for name, value in of_interface.items():
        setattr(CudaInterface, name, staticmethod(always(value)))
    CudaInterface.Worker.get_device_properties = staticmethod(always(Properties()))  # type: ignore[method-assign]
    CudaInterface.Worker.current_device = staticmethod(always(0))  # type: ignore[method-assign]
    driver.set_active(FakeDriver())
    torch._C._ensureCUDADeviceGuardSet()
    setattr(fake_tensor, "init_gpu_context", always(None))  # noqa: B010
    setattr(pad_mm, "_should_pad", always(False))  # noqa: B010 - would benchmark on the GPU
    make = torch.tensor

    def tensor(data: Any, *, device: torch.device | None = None, **kwargs: Any) -> Tensor:
        made = make(data, **kwargs)
        return made if device is None else torch.empty(made.shape, dtype=made.dtype, device=device)

    torch.tensor = tensor  # type: ignore[assignment]


def always(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


def generated(layers: int, batch: int) -> str:
    """Return inductor's code for a step of `batch` slots of a model in bf16 with `layers` decoder layers."""
    hf = DiaConfig(decoder_config={"num_hidden_layers": layers}, encoder_config={"num_hidden_layers": 1})
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in DiaForConditionalGeneration(hf).state_dict().items()}
    config = ModelConfig.of(hf)

    def stop(graph: GraphLowering) -> None:
        code, _ = graph.codegen()
        raise Generated(getattr(code, "value", code))

    torch._dynamo.reset()
    with (
        fake_tensor.FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True),
        torch.no_grad(),
        inductor_config.patch(fx_graph_cache=False, joint_graph_constant_folding=False),
        patch.object(GraphLowering, "compile_to_module", stop),
        patch.object(GraphLowering, "_compile_to_module", stop),
    ):

        def source(name: str) -> Tensor:
            return torch.empty(shapes[name], dtype=torch.bfloat16, device=DEVICE)

        weights = assemble(config, source, device=DEVICE, dtype=torch.bfloat16)
        state = new_state(config, SLOTS, DEVICE, torch.bfloat16)
        return lowered(weights, state, any_size(torch.arange(batch, device=DEVICE)))


def lowered(weights: Weights, state: State, index: Tensor) -> str:
    try:
        compiled_step()(weights, state, index)
    except Exception as error:
        found: BaseException | None = error
        while found is not None and not isinstance(found, Generated):
            found = found.__cause__ or found.__context__
        if found is None:
            raise
        return str(found.args[0])
    raise AssertionError("inductor ended without code")


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts launches: Triton's and those of every operation that computes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or "empty" in str(func))
        return func(*args, **kwargs or {})

    def __getitem__(self, grid: tuple[int, ...]) -> "Launches":
        """Stand in for a Triton kernel."""
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.count += 1


def inside(batch: int) -> dict[str, int]:
    """Return the launches inside each of the step's own operations on CUDA, for a batch of the real model."""
    config = ModelConfig.of(DiaConfig())
    decoder, head_dim = config.decoder, config.decoder.head_dim
    state = new_state(config, SLOTS, torch.device("meta"), torch.bfloat16)
    slots = torch.empty(batch, dtype=torch.long, device="meta")
    qkv = torch.empty(2 * batch, decoder.heads + 2 * decoder.kv_heads, head_dim, device="meta")
    tables = (torch.empty(decoder.positions, head_dim, device="meta"),) * 2
    text_q = torch.empty(batch, config.cross_heads, config.cross_head_dim, device="meta")
    logits = torch.empty(2 * batch, config.channels * decoder.vocabulary, device="meta")
    tokens = torch.empty(batch, config.channels, dtype=torch.long, device="meta")
    weight = torch.empty(decoder.hidden, decoder.hidden, dtype=torch.bfloat16, device="meta")
    # more rows are multiplied by cuBLAS, in one launch too
    rows = torch.empty(min(2 * batch, ROWS), decoder.hidden, dtype=torch.bfloat16, device="meta")
    written = (state.grid, state.position, state.eos_at, state.live, state.broken, state.end)
    runs: dict[str, Callable[[], object]] = {
        "self_attention": lambda: fused_self_attention(
            qkv, state.cache[0], tables, slots, state.position, state.arrivals
        ),
        "cross_attention": lambda: fused_cross_attention(
            text_q, state.text[0], slots, state.text_length, state.arrivals
        ),
        "product": lambda: fused_product(rows, weight, None, arrivals),
        "commit": lambda: fused_commit(*written, tokens[0], slots, tokens, logits, 0, 0, 0),
    }
    arrivals = new_arrivals(weight)
    counts = {}
    for name, run in runs.items():
        launches = Launches()
        own = {"attend_kernel": launches, "commit_kernel": launches, "product_kernel": launches}
        with launches, patch.multiple(kernels, **own):  # type: ignore[call-overload]
            run()
        counts[name] = launches.count
    return counts


def launches(code: str, batch: int) -> int:
    """Return the kernel launches of the code that inductor generated for a step."""
    return counted(code[code.index("def call(") :], batch)


def of_a_layer(code: str, batch: int) -> int:
    """Return the launches from the first layer's self-attention to the second one's, which are a layer's."""
    _, first, *_ = re.split(r"torch\.ops\.dia_server\.self_attention[\w.]*\(", code)
    return counted(first, batch) + inside(batch)["self_attention"]


def counted(body: str, batch: int) -> int:
    own = inside(batch)
    count = len(re.findall(r"triton_\w+\.run\(", body))
    for name in re.findall(r"(?:extern_kernels\.|torch\.ops\.|= aten\.)([\w.]+)\(", body):
        if name.startswith("dia_server."):
            count += own[name.split(".")[1]]
        else:
            count += TOPK if "topk" in name else 1
    if 2 * batch > ROWS:
        count += len(re.findall(r"dia_server\.product\.default\([^)]*, True\)", body))  # gated before
    return count


def largest_buffer(code: str) -> int:
    """Return the elements of the largest buffer; a dynamic batch counts as one slot."""
    return max(
        prod(map(int, re.findall(r"\b\d+", size)))
        for size in re.findall(r"empty_strided_cuda\(\(([^)]*)\)", code)
    )


def main() -> None:
    batch, *layers = map(int, sys.argv[1:])
    pretend()
    codes = {count: generated(count, batch) for count in layers}
    found = {
        count: [launches(code, batch), of_a_layer(code, batch), largest_buffer(code)]
        for count, code in codes.items()
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
