"""The compiled step on CUDA: few kernel launches, and no copy of an arena. It is compiled, not run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHES = 207
"""Maximum kernel launches of a step of the real model."""


@pytest.mark.parametrize("batch", [8, pytest.param(1, marks=pytest.mark.full)])
def test_a_step_on_cuda_takes_few_launches_and_copies_no_arena(batch: int) -> None:
    """A batch of 8 is compiled for any batch above 1."""
    pytest.importorskip("triton", reason="inductor generates Triton code")
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.dia.fake_cuda", str(batch), "2", "3"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd=Path(__file__).parents[3],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])

    (two, _), (three, largest) = found["2"], found["3"]
    assert two + (18 - 2) * (three - two) <= LAUNCHES
    # the smallest tensor of the state that is not a vector is the grid: 3073 columns of 9 channels a slot
    assert largest < 64 * 3073 * 9
