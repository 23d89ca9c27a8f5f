"""The step never waits for the device, and is one graph."""

import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code
from torch.utils._python_dispatch import TorchDispatchMode

from dia_server.engine.dia.assemble import assemble
from dia_server.engine.dia.decoder import step
from dia_server.engine.dia.delay import delayed
from dia_server.engine.dia.encoder import text_keys_values
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.state import State, new_state
from dia_server.engine.dia.step_runners import any_size, compiled_step
from dia_server.engine.dia.weights import Weights
from dia_server.engine.types import Utterance

from .tiny import tiny_dia

SLOTS = 4

Step = Callable[[Weights, State, Tensor], None]

SYNCHRONISING = {
    "aten._local_scalar_dense",
    "aten.equal",
    "aten.is_nonzero",
    "aten.masked_select",
    "aten.nonzero",
    "aten.unique_dim",
    "aten._unique2",
    "aten.repeat_interleave.Tensor",
}


class Synchronised(Exception):
    pass


class NoSynchronisation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises on operations that make the host wait for the device."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removesuffix(".default")
        masked = name in {"aten.index.Tensor", "aten.index_put_"} and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if masked or name in SYNCHRONISING:
            raise Synchronised(name)
        self.calls += 1
        return func(*args, **kwargs or {})


def begun(device: str, *, layers: int = 2, int8: bool = False) -> tuple[Weights, State]:
    """Return a state in which every slot is about to sample its first column."""
    dia = tiny_dia(layers=layers)
    where = torch.device(device)
    source = dia.state_dict().__getitem__
    weights = assemble(ModelConfig.of(dia.config), source, device=where, dtype=torch.float32, int8=int8)
    state = new_state(weights.config, SLOTS, where, torch.float32)
    columns = delayed(torch.empty(0, 9, dtype=torch.long), weights.config.delay, weights.config.bos)
    for slot in range(SLOTS):
        state.begin(slot, Utterance("x", "", seed=slot), columns, 0, 40)
        text = torch.arange(3, 20 + slot)
        state.set_text(slot, text_keys_values(weights, text.to(where)))
        state.live[slot] = True
    return weights, state


def observed(function: Step, device: str) -> int:
    """Run `function` with synchronization refused (impossible on "meta"); return its number of operations."""
    weights, state = begun(device)
    slots = torch.arange(SLOTS, device=device)
    seen = NoSynchronisation()  # type: ignore[no-untyped-call]
    with torch.inference_mode(), seen:
        function(weights, state, slots)
    return seen.calls


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_step_never_waits_for_the_device(device: str) -> None:
    assert observed(step, device) > 100


def looks_at_a_value(weights: Weights, state: State, slots: Tensor) -> None:
    if state.live.any():
        step(weights, state, slots)


def counts_the_live(weights: Weights, state: State, slots: Tensor) -> None:
    step(weights, state, slots[state.live])


def copies_to_the_host(weights: Weights, state: State, slots: Tensor) -> None:
    step(weights, state, slots)
    state.position.cpu()


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("function", [looks_at_a_value, counts_the_live])
def test_a_step_that_waits_is_caught(function: Step, device: str) -> None:
    with pytest.raises((Synchronised, RuntimeError, NotImplementedError)):
        observed(function, device)


def test_a_copy_to_the_host_is_caught() -> None:
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        observed(copies_to_the_host, "meta")


@pytest.mark.parametrize("int8", [False, True])
def test_the_step_is_one_graph_and_computes_the_same(int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dia_server.engine.dia.cpu_ops.multiplies_bytes", lambda: False)
    layers = 1 if int8 else 2
    weights, eager = begun("cpu", layers=layers, int8=int8)
    _, traced = begun("cpu", layers=layers)
    torch._dynamo.reset()
    compiled = compiled_step("eager")
    with torch.inference_mode(), torch._dynamo.config.patch(error_on_recompile=True):
        for batch in ([0, 1, 2, 3], [0, 1, 2, 3], [1, 3], [3, 0, 1]):
            slots = torch.tensor(batch)
            step(weights, eager, slots)
            compiled(weights, traced, any_size(slots))
    assert eager.position.tolist() == [3, 4, 2, 4]
    assert torch.equal(eager.position, traced.position)
    assert torch.equal(eager.grid, traced.grid)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # inductor imports what torch deprecates
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles with g++")
def test_a_fused_step_copies_no_arena_and_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a copy of the arena would be most of what a step reads and writes."""
    monkeypatch.setattr("dia_server.engine.dia.linear._multiplied_by_onednn", lambda weight: False)
    weights, eager = begun("cpu", layers=1)
    _, fused = begun("cpu", layers=1)
    compiled = compiled_step()
    slots = torch.arange(SLOTS)
    with torch.inference_mode():
        _, (code,) = run_and_get_code(lambda: compiled(weights, fused, any_size(slots)))
        for _ in range(3):
            compiled(weights, fused, any_size(slots))
        for _ in range(4):
            step(weights, eager, slots)

    sizes = re.findall(r"empty_strided_cpu\(\(([^)]*)\)", code)
    assert len(sizes) > 10
    assert not [size for size in sizes if str(eager.columns) in size or "1024" in size]
    for operation in ("self_attention", "cross_attention", "commit"):
        assert f"torch.ops.dia_server.{operation}" in code
    assert torch.equal(eager.grid, fused.grid)
    torch.testing.assert_close(eager.cache, fused.cache)
