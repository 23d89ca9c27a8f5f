"""Loading from folders, and the message of each failure."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dia_server.engine.dia.checkpoint import Checkpoint
from dia_server.engine.dia.loader import count_slots, dia_loader, has_half_codec, pick_device, pick_dtype
from dia_server.engine.dia.memory import PROMPT_BYTES, DeviceMemory
from dia_server.engine.dia.model import DiaModel
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.types import Utterance
from dia_server.errors import ModelNotLoaded

from .drive import CodesAsAudio, audio_of, drive, weights_of
from .tiny import save_dac, save_dia, tiny_dia


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    return save_dia(root / "dia", shard="1MB"), save_dac(root / "dac")


def ignore(share: float) -> None:
    pass


def test_a_sharded_folder_loads_and_speaks(folders: tuple[Path, Path]) -> None:
    shares: list[float] = []
    load = dia_loader(str(folders[0]), str(folders[1]), device="cpu", dtype="float32", max_batch=2)
    model = load(shares.append)
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 1
    chunks = drive(model, [Utterance("Hello", "", seed=1, max_tokens=48)])[0]
    assert len(audio_of(chunks)) % 512 == 0
    assert sum(chunk.tokens for chunk in chunks) <= 48
    assert chunks[-1].progress == 1.0
    model.close()


def test_files_and_memory_give_the_same_weights(folders: tuple[Path, Path]) -> None:
    asked = Utterance("Hello", "", seed=1, max_tokens=40)
    load = dia_loader(str(folders[0]), str(folders[1]), device="cpu", dtype="float32", max_batch=1)
    from_files = load(ignore)
    assert isinstance(from_files, DiaModel)
    from_files._audio_decoder._codec = CodesAsAudio()
    in_memory = DiaModel(weights_of(tiny_dia()), CodesAsAudio(), slots=1)
    assert (audio_of(drive(from_files, [asked])[0]) == audio_of(drive(in_memory, [asked])[0])).all()


@pytest.mark.parametrize(
    ("file", "cause"),
    [
        ("config.json", "lacks config.json"),
        ("model-00002-of-00003.safetensors", "lacks model-00002-of-00003.safetensors"),
        ("model.safetensors.index.json", "lacks model.safetensors"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, file: str, cause: str) -> None:
    folder = save_dia(tmp_path / "dia", shard="1MB")
    (folder / file).unlink()
    with pytest.raises(ModelNotLoaded, match=cause):
        Checkpoint(folder)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    folder = save_dia(tmp_path / "dia")
    (folder / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(ModelNotLoaded, match=r"model\.safetensors could not be read"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    ("file", "content", "cause"),
    [
        ("config.json", "[]", "is not a JSON object"),
        ("config.json", "{", "is not JSON"),
        ("model.safetensors.index.json", "{}", "has no weight_map"),
    ],
)
def test_an_invalid_json_file_is_named(tmp_path: Path, file: str, content: str, cause: str) -> None:
    folder = save_dia(tmp_path / "dia", shard="1MB")
    (folder / file).write_text(content)
    with pytest.raises(ModelNotLoaded, match=f"{file} {cause}"):
        Checkpoint(folder)


def test_another_model_is_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ModelNotLoaded, match="'dac'; expected 'dia'"):
        Checkpoint(folders[1])


def test_a_wrong_shape_and_a_missing_tensor_are_named(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    folder = save_dia(tmp_path / "dia")
    tensors = load_file(folder / "model.safetensors")
    name = "model.decoder.layers.1.mlp.down_proj.weight"
    tensors[name] = tensors[name][:, :-1].contiguous()
    save_file(tensors, folder / "model.safetensors")
    load = dia_loader(str(folder), str(folders[1]), device="cpu", max_batch=1)
    with pytest.raises(ModelNotLoaded, match=rf"{name}' has shape \[64, 127\]; .* \[64, 128\]"):
        load(ignore)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelNotLoaded, match=f"no tensor '{name}'"):
        load(ignore)


def test_a_config_without_its_tokens_is_refused(tmp_path: Path) -> None:
    folder = save_dia(tmp_path / "dia")
    config = json.loads((folder / "config.json").read_bytes())
    config["decoder_config"]["eos_token_id"] = None
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelNotLoaded, match="EOS"):
        Checkpoint(folder)


def test_too_little_memory_is_reported_before_reading(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = DeviceMemory(total=1 << 34, free=PROMPT_BYTES + (1 << 20), on_gpu=False)
    monkeypatch.setattr("dia_server.engine.dia.loader.device_memory", lambda device: full)
    load = dia_loader(str(folders[0]), str(folders[1]), device="cpu", max_batch=1)
    with pytest.raises(ModelNotLoaded, match=r"Too little memory on cpu: .* 1 MiB are available"):
        load(ignore)


def test_memory_that_runs_out_while_reading_is_reported(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("dia_server.engine.dia.loader.assemble", full)
    load = dia_loader(str(folders[0]), str(folders[1]), device="cpu", max_batch=1)
    with pytest.raises(ModelNotLoaded, match="Too little memory"):
        load(ignore)


def test_slots_are_what_memory_holds_up_to_the_cap() -> None:
    def slots(free: int) -> int:
        shape = ModelConfig.of(tiny_dia().config)
        memory = DeviceMemory(total=20_000, free=free, on_gpu=False)
        return count_slots(shape, torch.float32, 8, memory)

    cache = 2 * 2 * 2 * 2 * 3072 * 16 * 4
    text = 2 * 2 * 4 * 1024 * 16 * 4
    each = cache + text + 3073 * 9 * 8
    assert slots(5 * each + 1000) == 5
    assert slots(50 * each) == 8
    with pytest.raises(ModelNotLoaded, match="one request takes"):
        slots(each + 999)


def test_slots_may_have_fewer_columns(folders: tuple[Path, Path]) -> None:
    def loaded(columns: int | None) -> DiaModel:
        load = dia_loader(
            str(folders[0]), str(folders[1]), device="cpu", dtype="float32", max_batch=1, max_columns=columns
        )
        model = load(ignore)
        assert isinstance(model, DiaModel)
        model._audio_decoder._codec = CodesAsAudio()
        return model

    few, all_columns, more = loaded(100), loaded(None), loaded(4000)
    assert [model._state.columns for model in (few, all_columns, more)] == [100, 3072, 3072]
    short, long = (Utterance("Hello", "", seed=1, max_tokens=tokens) for tokens in (60, 500))
    assert (audio_of(drive(few, [short])[0]) == audio_of(drive(all_columns, [short])[0])).all()
    assert sum(chunk.tokens for chunk in drive(few, [long])[0]) <= 100


def test_an_unusable_device_or_dtype_is_named() -> None:
    with pytest.raises(ModelNotLoaded, match="'abacus' cannot be used"):
        pick_device("abacus")
    with pytest.raises(ModelNotLoaded, match="'int3' is none of auto, bfloat16"):
        pick_dtype("int3", torch.device("cpu"), 1)


def test_a_codec_in_fp16_needs_a_gpu() -> None:
    load = dia_loader("nowhere", "nowhere", device="cpu", max_batch=1, codec_dtype="fp16")
    with pytest.raises(
        ModelNotLoaded, match=r"DIA_CODEC_DTYPE=fp16 needs .* on cpu; set DIA_CODEC_DTYPE=fp32"
    ):
        load(lambda share: None)

    assert has_half_codec("fp16", torch.device("cuda"))
    assert not has_half_codec("fp32", torch.device("cuda"))


@pytest.mark.parametrize(
    ("bf16", "tiles", "fbgemm", "chosen"),
    [
        (True, True, True, {1: torch.bfloat16, 2: torch.bfloat16, 3: torch.bfloat16}),
        (True, False, True, {1: torch.float16, 2: torch.float16, 3: torch.bfloat16, 64: torch.bfloat16}),
        (True, False, False, {1: torch.bfloat16, 64: torch.bfloat16}),
        (False, False, True, {1: torch.float16, 64: torch.float16}),
        (False, False, False, {1: torch.float32, 64: torch.float32}),
    ],
)
def test_auto_takes_the_fastest_dtype_of_a_cpu_for_its_slots(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, tiles: bool, fbgemm: bool, chosen: dict[int, torch.dtype]
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr("dia_server.engine.dia.loader.FBGEMM", fbgemm)

    assert {slots: pick_dtype("auto", torch.device("cpu"), slots) for slots in chosen} == chosen
    beside_int8 = dict.fromkeys(chosen, torch.bfloat16) if bf16 and not tiles else chosen
    assert {slots: pick_dtype("int8", torch.device("cpu"), slots) for slots in chosen} == beside_int8
    assert pick_dtype("float32", torch.device("cpu"), 1) == torch.float32
