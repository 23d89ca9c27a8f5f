"""`dia-server fidelity` on small random models."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from dia_server.cli import main
from dia_server.errors import Invalid
from dia_server.fidelity import comparison
from dia_server.fidelity.report import (
    CLOSE_KL,
    CLOSE_LEFT_OUT,
    CLOSE_P99,
    CLOSE_WORDS,
    WORSE_KL,
    WORSE_LEFT_OUT,
    WORSE_P99,
    WORSE_WORDS,
    Channel,
    Report,
    Words,
    judge,
    table,
)
from dia_server.fidelity.texts import TEXTS, read_texts
from dia_server.settings import Settings
from dia_server.text.budget import encoded_length
from dia_server.vocabulary import SOUND
from tests.engine.dia.drive import weights_of
from tests.engine.dia.tiny import save_dia, tiny_dia

SHORT = ("[S1] Hi.", "[S1] No? [S2] Oh.", "[S1] (sighs) So.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dia(tmp_path_factory.mktemp("models") / "dia")


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, with 38 columns for each text; take back the variables that flags set."""
    before = os.environ.copy()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "MAX_RATIO", 0)
    monkeypatch.setattr(comparison, "SLACK_S", 0.25)
    monkeypatch.setattr(comparison, "BATCH", 2)
    yield
    os.environ.clear()
    os.environ.update(before)


def ran(*arguments: str) -> tuple[int, str, str]:
    run = CliRunner().invoke(main, ["fidelity", "--device=cpu", *arguments])
    return run.exit_code, run.stdout, run.stderr


def test_fp32_equals_itself(folder: Path) -> None:
    conf = Settings(model=str(folder), device="cpu", dtype="float32")
    report = comparison.compare(conf, SHORT, seed=0, whisper=None, progress=lambda *_: None)

    assert [(one.mean_kl, one.p99_kl, one.argmax_agreement, one.left_out) for one in report.channels] == [
        (0.0, 0.0, 1.0, 0.0)
    ] * 9
    assert (report.ends.median_frames, report.ends.p90_frames) == (0, 0)
    assert report.ends.reference_reached_limit == report.ends.reached_limit
    title, head, *rows = table(report)
    assert title == f"float32 against float32: {folder} on cpu, 3 texts"
    assert head.split()[-2:] == ["left", "out"]
    assert [row.split()[0] for row in rows[:9]] == [str(channel) for channel in range(9)]
    assert rows[0].split()[2:] == ["0", "0", "100.00", "%", "0.00", "%"]
    assert rows[-1] == "Verdict: close: no number suggests that you would hear a difference"


def test_a_cheaper_dtype_differs_in_every_channel(folder: Path) -> None:
    Path("texts").write_text("Hi.\n\n[S2] No.\nNot this one.\n")

    status, stdout, stderr = ran(f"--model={folder}", "--dtype=bf16", "--texts=texts", "--count=2", "--json")

    assert status == 0, stderr
    assert stderr.splitlines() == [
        "loading float32",
        "speaking in float32",
        "loading bfloat16",
        "comparing bfloat16",
        "speaking in bfloat16",
    ]
    assert set(json.loads(stdout)) == set(Report.__struct_fields__)
    report = msgspec.json.decode(stdout, type=Report)
    assert (report.reference, report.dtype, report.texts) == ("float32", "bfloat16", 2)
    assert report.words is None
    assert [one.channel for one in report.channels] == list(range(9))
    for one in report.channels:
        assert 0 < one.mean_kl < one.p99_kl
        assert 0 < one.left_out < 0.5
        assert 0.5 < one.argmax_agreement <= 1


def test_new_weights_get_no_verdict() -> None:
    """A new model's norms are 1. `tiny_dia` draws them at random, which cannot be told from training."""
    dia = tiny_dia(layers=1)
    assert not comparison.is_untrained(weights_of(dia))
    for name, weight in dia.named_parameters():
        if "norm" in name:
            weight.fill_(1.0)
    assert comparison.is_untrained(weights_of(dia))

    verdict = judge(channels(), None, untrained=True)

    assert verdict.grade == "none"
    assert "untrained" in verdict.advice


def test_numbers_that_are_not_finite_name_the_text(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.decoder.norm.weight"][0] = torch.inf
    (tmp_path / "broken").mkdir()
    save_file(tensors, tmp_path / "broken/model.safetensors")
    (tmp_path / "broken/config.json").write_bytes((folder / "config.json").read_bytes())

    status, _, stderr = ran(f"--model={tmp_path}/broken", "--count=1")

    assert status == 1
    assert stderr.endswith("Error: The model produced numbers that are not finite (text 1)\n")


def channels(kl: float = 0.0, p99: float = 0.0, left_out: float = 0.0) -> list[Channel]:
    return [Channel(0, 100, 0.0, 0.0, 1.0, 0.0), Channel(1, 100, kl, p99, 0.9, left_out)]


@pytest.mark.parametrize(
    ("measure", "close", "worse"),
    [
        ("kl", CLOSE_KL, WORSE_KL),
        ("p99", CLOSE_P99, WORSE_P99),
        ("left_out", CLOSE_LEFT_OUT, WORSE_LEFT_OUT),
    ],
)
def test_the_worst_channel_decides(measure: str, close: float, worse: float) -> None:
    values = (close, close * 1.01, worse, worse * 1.01)
    verdicts = [judge(channels(**{measure: value}), None, untrained=False) for value in values]

    assert [one.grade for one in verdicts] == ["close", "listen", "listen", "worse"]
    assert [len(one.reasons) for one in verdicts] == [0, 1, 1, 1]
    assert f"above {worse:g}" in verdicts[-1].reasons[0]


def test_more_wrong_words_decide_too() -> None:
    words = [Words("tiny.en", 4.0, 4.0 + more) for more in (-9.0, CLOSE_WORDS, 2.1, WORSE_WORDS, 5.1)]
    grades = [judge(channels(), one, untrained=False).grade for one in words]

    assert grades == ["close", "close", "listen", "listen", "worse"]
    both = judge(channels(kl=0.2), words[2], untrained=False)
    assert (both.grade, len(both.reasons)) == ("worse", 2)


def test_control_c_ends_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("dia_server.cli._show_progress", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        assert ran(f"--model={folder}") == (1, "", "\nAborted!\n")
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype=int3"], "DIA_DTYPE: must be one of auto, "),
        (["--model=/nowhere/dia"], "'/nowhere/dia' is neither a folder nor the name of a repository"),
        (["--whisper=/nowhere"], "--whisper /nowhere: neither a folder nor one of tiny, "),
        (["--texts=long"], "Text 2: The text has 1101 bytes "),
        (["--texts=empty"], "--texts: empty has no text"),
        (["--texts=binary"], "--texts: binary is no UTF-8: "),
    ],
)
def test_what_cannot_be_compared_is_named(folder: Path, arguments: list[str], message: str) -> None:
    Path("long").write_text("Short.\n" + "a" * 1099)
    Path("empty").write_text("\n \n")
    Path("binary").write_bytes(b"\xff\xfe")

    status, stdout, stderr = ran(f"--model={folder}", *arguments)

    assert (status, stdout) == (1, "")
    assert message in stderr
    assert stderr.count("\n") == 1


def test_a_huge_file_of_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(b"a" * ((1 << 20) + 1))

    with pytest.raises(Invalid, match="exceeds 1048576 bytes"):
        read_texts(tmp_path / "huge")


def test_the_built_in_texts_are_fifty_dialogues_with_sounds() -> None:
    assert len(set(TEXTS)) == 50
    assert all(text.startswith("[S1]") and "[S2]" in text and encoded_length(text) < 200 for text in TEXTS)
    assert sum(bool(SOUND.search(text)) for text in TEXTS) >= 15
