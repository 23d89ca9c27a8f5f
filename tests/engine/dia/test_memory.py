"""How many slots fit into a GPU, by its memory, and the table of docs/tuning.md."""

import re
from pathlib import Path

import pytest
import torch
from transformers import DacConfig, DacModel, DiaConfig, DiaForConditionalGeneration

from dia_server.engine.dia.assemble import assemble
from dia_server.engine.dia.memory import DeviceMemory
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.state import slot_bytes
from dia_server.units import GIB, MIB, SAMPLE_RATE

DOCS = Path(__file__).parents[3] / "docs"
ROW = re.compile(r"^\| (\d+) GB \| (.+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
CARD = re.compile(r"^\| [^|]+ \| (\d+) GB \| (\d+) \|", re.MULTILINE)
RESERVED, CONTEXT, DESKTOP = GIB // 4, 460 * MIB, 768 * MIB
"""Bytes that the driver keeps, that torch and its libraries take, and that a desktop takes (see the docs)."""
CODE_TABLE = 9 * 1024 * 1024 * 4
META = torch.device("meta")


def gpu(gigabytes: int, used: int = 0) -> DeviceMemory:
    total = gigabytes * GIB - RESERVED
    return DeviceMemory(total, total - CONTEXT - used, on_gpu=True)


@pytest.fixture(scope="module")
def shape() -> ModelConfig:
    return ModelConfig.of(DiaConfig())


@pytest.fixture(scope="module")
def sizes(shape: ModelConfig) -> dict[torch.dtype, int]:
    """Bytes of weights and codec, by the dtype of the weights; with int8, the others are bf16."""
    with META:
        weights = DiaForConditionalGeneration(DiaConfig()).state_dict()
        codec = DacModel(DacConfig(sampling_rate=SAMPLE_RATE))
    codec_bytes = sum(weight.nbytes for weight in codec.parameters()) + CODE_TABLE

    def loaded(dtype: torch.dtype, *, int8: bool = False) -> int:
        assembled = assemble(shape, weights.__getitem__, device=META, dtype=dtype, int8=int8)
        return int(codec_bytes) + assembled.bytes

    half, full = torch.bfloat16, torch.float32
    return {half: loaded(half), full: loaded(full), torch.int8: loaded(half, int8=True)}


def slots(shape: ModelConfig, memory: DeviceMemory, dtype: torch.dtype = torch.bfloat16) -> int:
    return memory.fitting_slots(sum(slot_bytes(shape, dtype).values()), 64)


def test_the_table_of_slots_is_what_the_server_allocates(
    shape: ModelConfig, sizes: dict[torch.dtype, int]
) -> None:
    rows = ROW.findall((DOCS / "tuning.md").read_text())
    assert len(rows) >= 8
    half, full = sizes[torch.bfloat16], sizes[torch.float32]
    for size, *written in rows:
        counts = (
            slots(shape, gpu(int(size), half)),
            slots(shape.with_columns(2048), gpu(int(size), half)),
            slots(shape, gpu(int(size), half + DESKTOP)),
            slots(shape, gpu(int(size), full), torch.float32),
            slots(shape, gpu(int(size), sizes[torch.int8])),
        )
        assert written == [str(count) if count else "none" for count in counts], f"{size} GB"


def test_the_slots_of_each_card_are_what_the_server_allocates(
    shape: ModelConfig, sizes: dict[torch.dtype, int]
) -> None:
    cards = CARD.findall((DOCS / "hardware.md").read_text())
    assert len(cards) >= 10
    for size, written in cards:
        assert slots(shape, gpu(int(size), sizes[torch.bfloat16])) == int(written), f"{size} GB"


def test_small_cards_hold_requests(shape: ModelConfig, sizes: dict[torch.dtype, int]) -> None:
    weights = sizes[torch.bfloat16]
    assert slots(shape, gpu(6, weights)) >= 1
    assert slots(shape, gpu(8, weights)) >= 6


@pytest.mark.parametrize(
    ("total", "slots", "margin"),
    [(6, 1, 1), (8, 4, 1), (8, 10, 1.5), (8, 16, 2), (8, 64, 2), (20, 1, 2.5), (24, 64, 3), (80, 64, 3)],
)
def test_the_margin_follows_slots_and_card(total: int, slots: int, margin: float) -> None:
    assert DeviceMemory(total * GIB, 0, on_gpu=True).margin(slots) == margin * GIB
    assert DeviceMemory(total * GIB, 0, on_gpu=False).margin(slots) == 0


@pytest.mark.parametrize(("total", "mebibytes"), [(5, 256), (10, 512), (80, 512)])
def test_prompts_take_a_twentieth_of_a_small_card(total: int, mebibytes: int) -> None:
    assert DeviceMemory(total * GIB, 0, on_gpu=True).prompt_bytes == mebibytes * MIB


def test_what_is_allocated_leaves_the_margin() -> None:
    for free in range(0, 12 * GIB, 97 * MIB):
        memory = DeviceMemory(12 * GIB, free, on_gpu=True)
        count = memory.fitting_slots(360 * MIB, 64)
        taken = memory.prompt_bytes + count * 360 * MIB
        assert not count or taken + memory.margin(count) <= free
        assert count == 64 or taken + 360 * MIB + memory.margin(count + 1) > free
