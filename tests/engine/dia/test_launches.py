"""The compiled step on CUDA: few kernel launches, and no copy of an arena. It is compiled, not run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHES = 207
"""Maximum kernel launches of a step of the real model."""
LAYERS = 18
"""Decoder layers of the real model."""


def lowered(batch: int, *layers: int) -> list[list[int]]:
    """Return for each number of layers what `fake_cuda` prints."""
    pytest.importorskip("triton", reason="inductor generates Triton code")
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.dia.fake_cuda", *map(str, (batch, *layers))],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # starts no processes: no kernel is compiled
        },
        cwd=Path(__file__).parents[3],
        check=True,
        capture_output=True,
        text=True,
    )
    return list(json.loads(done.stdout.splitlines()[-1]).values())


def test_a_step_on_cuda_takes_few_launches_and_copies_no_arena() -> None:
    """A batch of 8 is compiled for any batch above 1."""
    [[two, layer, largest]] = lowered(8, 2)

    assert two + (LAYERS - 2) * layer <= LAUNCHES
    # the smallest tensor of the state that is not a vector is the grid: 3073 columns of 9 channels a slot
    assert largest < 64 * 3073 * 9


@pytest.mark.full
@pytest.mark.parametrize("batch", [8, 1])
def test_each_layer_adds_the_launches_of_a_layer(batch: int) -> None:
    [two, layer, _], [three, same, largest] = lowered(batch, 2, 3)

    assert three - two == layer == same
    assert three + (LAYERS - 3) * layer <= LAUNCHES
    assert largest < 64 * 3073 * 9
