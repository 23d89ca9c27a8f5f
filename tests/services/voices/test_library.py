import asyncio
import io
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from dia_server.audio.encode import encode
from dia_server.errors import Conflict, Invalid, InvalidVoiceId, PromptNotUsable, ServerError, UnusableAudio
from dia_server.services.durable_files import RecoverableChange
from dia_server.services.voices.library_archive import MAX_EXPORT, writing
from dia_server.services.voices.library_manifest import (
    MANIFEST,
    MAX_SIZE,
    Manifest,
    RecordingEntry,
    VoiceEntry,
)
from dia_server.services.voices.service import BUILT_IN, Voice
from tests.libraries import TIME, Files, Home, anchor_file, describe, edited, pack, unpack
from tests.recordings import RATE, sound, wav_file


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[Home]:
    home = Home(tmp_path / "home", database_url)
    await home.open()
    yield home
    await home.database.close()


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[Home]:
    full = Home(tmp_path / "full")
    await full.open()
    await full.furnish()
    yield full
    await full.database.close()


async def exported(home: Home, *voice_ids: str, licence: str | None = None) -> bytes:
    with await home.library.export(voice_ids, licence=licence) as file:
        return file.read()


async def test_an_export_imported_elsewhere_is_the_same(full: Home, home: Home) -> None:
    archive = await exported(full, licence="Только для друзей\n(CC BY 4.0)")
    imported = await home.library.add(io.BytesIO(archive))

    assert imported.licence == "Только для друзей\n(CC BY 4.0)"
    assert dict(home.voices.all) == dict(full.voices.all)
    for prompt_id, prompt in full.prompts.all.items():
        copied = home.prompts.all[prompt_id]
        assert (copied.digest, copied.transcript) == (prompt.digest, prompt.transcript)
        for suffix in (".wav", ".txt"):
            name = prompt_id + suffix
            assert (home.folder.path / name).read_bytes() == (full.folder.path / name).read_bytes()
    assert set(home.anchors.all) == {"made"}
    copy, made = home.anchors.all["made"], full.anchors.all["made"]
    assert replace(copy, created_at=made.created_at) == made
    assert await home.anchors.read(copy)
    assert await exported(home, licence="Только для друзей\n(CC BY 4.0)") == archive

    before = home.content
    await home.prompts.discover()
    assert home.content == before, "the files are those that the database describes"


async def test_a_draft_by_whisper_stays_a_draft(full: Home, home: Home) -> None:
    anna = full.prompts.get("anna")
    await full.prompts.set_transcript(anna, "Thank you for watching.", "whisper_auto", needs_review=True)

    await home.library.add(io.BytesIO(await exported(full)))

    draft = home.prompts.get("anna")
    assert (draft.transcript, draft.needs_review) == ("Thank you for watching.", True)
    assert not (home.folder.path / "anna.txt").exists()
    await home.prompts.discover()
    assert home.prompts.get("anna") == draft


async def test_only_the_chosen_voices_are_exported(full: Home, home: Home) -> None:
    await home.library.add(io.BytesIO(await exported(full, "anna", "Aria", "anna")))

    assert set(home.voices.all) == {*BUILT_IN, "anna"}
    assert set(home.prompts.all) == {"anna"}
    assert home.voices.all["anna"].partner is None, "its partner was not exported"
    with pytest.raises(InvalidVoiceId, match="'nobody'"):
        await exported(full, "anna", "nobody")


async def test_an_import_first_undoes_one_that_was_interrupted(full: Home, home: Home) -> None:
    killed = RecoverableChange(home.folder.path)
    killed.committed["ghost"] = "a digest that no row has"
    killed.add("ghost.wav", b"half an import")
    killed.apply()

    await home.library.add(io.BytesIO(await exported(full)))

    assert not (home.folder.path / "ghost.wav").exists()
    assert home.prompts.all.keys() == {"anna", "ben"}


async def test_a_voice_without_its_recording_is_not_exported(full: Home) -> None:
    (full.folder.path / "ben.wav").write_bytes(wav_file(2.0))
    with pytest.raises(PromptNotUsable, match="'ben' has changed"):
        await exported(full)
    await full.voices.save(Voice("lost", audio_prompt="nothing"))
    with pytest.raises(PromptNotUsable, match="'nothing', which does not exist"):
        await exported(full)
    assert len(unpack(await exported(full, "anna"))[0]) == 1


async def test_existing_ids_are_named_and_replaced_only_on_request(full: Home, home: Home) -> None:
    archive = await exported(full)
    await home.voices.save(Voice("plain", "gloomy"))
    await home.prompts.add("ben", io.BytesIO(wav_file(2.0)), "Another Ben.")
    (home.folder.path / "ben.reference.txt").write_text("Written by hand.")
    (home.folder.path / "ben.mp3").write_bytes(b"older")
    await home.voices.save(Voice("other", audio_prompt="ben"))
    before = home.content

    with pytest.raises(Conflict, match="voice 'plain', audio prompt 'ben'; replace=true"):
        await home.library.add(io.BytesIO(archive))
    assert home.content == before

    await home.library.add(io.BytesIO(archive), overwrite=True)
    assert home.voices.all["plain"] == Voice("plain")
    assert home.voices.all["other"] == Voice("other", audio_prompt="ben")
    assert home.prompts.all["ben"].digest == full.prompts.all["ben"].digest
    assert {path.name for path in home.folder.path.iterdir()} == {
        "anna.txt",
        "anna.wav",
        "ben.txt",
        "ben.wav",
    }


async def test_a_built_in_voice_as_it_came_is_no_conflict(full: Home, home: Home) -> None:
    await full.voices.save(Voice("aria", audio_prompt="anna", partner="kai"))
    archive = await exported(full, "aria")

    await home.library.add(io.BytesIO(archive))
    assert home.voices.all["aria"] == Voice("aria", audio_prompt="anna", partner="kai")
    with pytest.raises(Conflict, match="voice 'aria', audio prompt 'anna'"):
        await home.library.add(io.BytesIO(archive))


async def test_other_formats_of_recordings_are_converted_like_uploads(full: Home, home: Home) -> None:
    mp3 = encode(sound(2.0), RATE, "mp3")

    def with_mp3(files: Files, manifest: dict[str, Any]) -> None:
        files["recordings/anna.wav"] = mp3
        describe(manifest["recordings"][0], mp3)

    archive = edited(await exported(full), with_mp3)
    await home.library.add(io.BytesIO(archive))
    await home.prompts.add("by_upload", io.BytesIO(mp3))

    assert home.prompts.all["anna"].digest == home.prompts.all["by_upload"].digest


async def test_the_anchor_of_a_built_in_voice_is_exported_and_conflicts(full: Home, home: Home) -> None:
    await full.add_anchor("aria", seed=1)
    archive = await exported(full)
    await home.add_anchor("aria", seed=2)
    before = home.content

    with pytest.raises(Conflict, match="voice 'aria';"):
        await home.library.add(io.BytesIO(archive))
    assert home.content == before

    await home.library.add(io.BytesIO(archive), overwrite=True)
    assert home.anchors.all["aria"].seed == 1
    assert {path.stem for path in (home.data / "anchors").iterdir()} == {
        anchor.digest for anchor in full.anchors.all.values()
    }


async def test_a_replaced_voice_loses_its_anchor(full: Home, home: Home) -> None:
    archive = await exported(full, "anna", "plain")
    for name in ("anna", "plain"):
        await home.voices.save(Voice(name))
        await home.add_anchor(name, seed=3)

    await home.library.add(io.BytesIO(archive), overwrite=True)
    assert dict(home.anchors.all) == {}
    assert list((home.data / "anchors").iterdir()) == []
    await home.anchors.load()
    assert dict(home.anchors.all) == {}


async def test_an_anchor_beside_a_recording_is_not_exported(full: Home) -> None:
    await full.add_anchor("anna", seed=1)

    assert [name for name in unpack(await exported(full))[0] if "anchor" in name] == ["anchors/made.anchor"]


async def test_a_compressed_archive_is_imported(full: Home, home: Home) -> None:
    archive = pack(*unpack(await exported(full)), zipfile.ZIP_DEFLATED)

    await home.library.add(io.BytesIO(archive))
    assert set(home.prompts.all) == {"anna", "ben"}


async def test_a_partner_of_this_server_is_accepted(full: Home, home: Home) -> None:
    def change(_: Files, manifest: dict[str, Any]) -> None:
        manifest["voices"][0]["partner"] = "mine"

    archive = edited(await exported(full), change)
    await home.voices.save(Voice("mine"))
    await home.library.add(io.BytesIO(archive))

    assert home.voices.all["anna"].partner == "mine"


@pytest.mark.parametrize(("voices", "size", "limit"), [(1001, 1, 1000), (100, 2_100_000, MAX_EXPORT)])
def test_an_archive_that_could_not_be_imported_is_not_written(voices: int, size: int, limit: int) -> None:
    names = [f"voice{number}" for number in range(voices)]
    manifest = Manifest(
        licence=None,
        voices=[VoiceEntry(**asdict(Voice(name, audio_prompt=name))) for name in names],
        recordings=[
            RecordingEntry(
                prompt_id=name,
                sha256="0" * 64,
                size=size,
                transcript=None,
                transcript_source=None,
                consent=None,
            )
            for name in names
        ],
        anchors=[],
    )

    with pytest.raises(Invalid, match="choose fewer voices") as refused, writing(io.BytesIO(), manifest):
        pass
    assert (refused.value.param, refused.value.limit) == ("voice_id", limit)


# Each damage takes the bytes of a good archive and returns those of a damaged one.
Damage = Callable[[bytes], bytes]


def in_manifest(*path: str | int, value: object) -> Damage:
    """Set the manifest's value at `path`."""

    def change(_: Files, manifest: Any) -> None:
        for step in path[:-1]:
            manifest = manifest[step]
        manifest[path[-1]] = value

    return lambda archive: edited(archive, change)


def without(*path: str | int) -> Damage:
    def change(_: Files, manifest: Any) -> None:
        for step in path[:-1]:
            manifest = manifest[step]
        del manifest[path[-1]]

    return lambda archive: edited(archive, change)


def manifest_is(content: bytes) -> Damage:
    """Replace the manifest's bytes."""

    def damage(archive: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as changed:
            changed.writestr(zipfile.ZipInfo(MANIFEST, TIME), content)
            for name, file in unpack(archive)[0].items():
                changed.writestr(zipfile.ZipInfo(name, TIME), file)
        return out.getvalue()

    return damage


def with_entry(name: str, content: bytes = b"x", mode: int = 0, compression: int = 0) -> Damage:
    """Append an entry."""

    def damage(archive: bytes) -> bytes:
        out = io.BytesIO(archive)
        with zipfile.ZipFile(out, "a") as changed:
            entry = zipfile.ZipInfo(name, TIME)
            entry.external_attr = mode << 16
            changed.writestr(entry, content, compression)
        return out.getvalue()

    return damage


def recording_id_is(prompt_id: str) -> Damage:
    """Name a recording `prompt_id` everywhere, so that the archive agrees with its manifest."""

    def change(files: Files, manifest: Any) -> None:
        manifest["recordings"][0]["prompt_id"] = prompt_id
        manifest["voices"][0]["audio_prompt"] = prompt_id
        files[f"recordings/{prompt_id}.wav"] = files.pop("recordings/anna.wav")

    return lambda archive: edited(archive, change)


def recording_is(content: bytes) -> Damage:
    def change(files: Files, manifest: Any) -> None:
        files["recordings/anna.wav"] = content
        describe(manifest["recordings"][0], content)

    return lambda archive: edited(archive, change)


def anchor_is(content: bytes) -> Damage:
    def change(files: Files, manifest: Any) -> None:
        files["anchors/made.anchor"] = content
        describe(manifest["anchors"][0], content)

    return lambda archive: edited(archive, change)


def renamed(name: str) -> Damage:
    def change(files: Files, _: Any) -> None:
        files[name] = files.pop("recordings/anna.wav")

    return lambda archive: edited(archive, change)


def directory_entry(archive: bytes, number: int) -> int:
    """Return the position of an entry of the archive's directory."""
    (at,) = struct.unpack("<L", archive[-6:-2])
    for _ in range(number):
        at = archive.index(b"PK\x01\x02", at + 1)
    return int(at)


def in_directory(offset: int, value: bytes, *, entry: int = 1) -> Damage:
    """Overwrite bytes of an entry of the archive's directory."""

    def damage(archive: bytes) -> bytes:
        at = directory_entry(archive, entry)
        return archive[: at + offset] + value + archive[at + offset + len(value) :]

    return damage


def in_end(offset: int, value: bytes) -> Damage:
    """Overwrite bytes of the record at the archive's end."""

    def damage(archive: bytes) -> bytes:
        at = len(archive) - 22 + offset
        return archive[:at] + value + archive[at + len(value) :]

    return damage


def compressed(compression: int) -> Damage:
    return lambda archive: pack(*unpack(archive), compression)


def bomb(archive: bytes) -> bytes:
    """A recording of 200 MB of zeros in 200 kB."""
    files, manifest = unpack(archive)
    zeros = bytes(MAX_SIZE)
    files["recordings/anna.wav"] = zeros
    describe(manifest["recordings"][0], zeros)
    return pack(files, manifest, zipfile.ZIP_DEFLATED)


def lying_bomb(archive: bytes) -> bytes:
    """A recording that inflates to more than the directory and the manifest say."""
    files, manifest = unpack(archive)
    zeros = bytes(10_000_000)
    packer = zlib.compressobj(wbits=-15)
    inflates = packer.compress(zeros) + packer.flush()
    files["recordings/anna.wav"] = inflates
    describe(manifest["recordings"][0], zeros[:1000])
    stored = pack(files, manifest)
    local = stored.index(b"PK\x03\x04", stored.index(b"PK\x03\x04") + 1)
    for at, method, size in ((local, 8, 22), (directory_entry(stored, 1), 10, 24)):
        stored = stored[: at + method] + struct.pack("<H", zipfile.ZIP_DEFLATED) + stored[at + method + 2 :]
        stored = stored[: at + size] + struct.pack("<L", 1000) + stored[at + size + 4 :]
    return stored


def many_entries(archive: bytes) -> bytes:
    out = io.BytesIO(archive)
    with zipfile.ZipFile(out, "a") as changed:
        for number in range(2001):
            changed.writestr(zipfile.ZipInfo(f"recordings/{number}.wav", TIME), b"")
    return out.getvalue()


def zip64(archive: bytes) -> bytes:
    end = len(archive) - 22
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 46, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    return archive[:end] + record + locator + archive[end:]


SECRET = "recordings/anna.wav"
DAMAGES: dict[str, tuple[Damage, str]] = {
    "no bytes": (lambda _: b"", "no ZIP archive"),
    "no archive": (lambda _: wav_file(1.0), "no ZIP archive"),
    "an archive of nothing": (lambda _: b"PK\x05\x06" + bytes(18), "'library.json' is missing"),
    "cut at its end": (lambda archive: archive[:-1], "its end is missing"),
    "cut in the middle": (lambda archive: archive[: len(archive) // 2], "its end is missing"),
    "only its end": (lambda archive: archive[-22:], "damaged"),
    "with a comment": (lambda archive: archive[:-2] + b"\x03\x00abc", "comment"),
    "ZIP64": (zip64, "ZIP64"),
    "a directory that is too large": (in_end(12, b"\xff\xff\xff\x7f"), "too many entries"),
    "a directory that is elsewhere": (in_end(16, b"\xff\xff\xff\x7f"), "damaged"),
    "a damaged directory": (in_directory(0, b"XXXX"), "damaged"),
    "too many entries": (many_entries, "limit is 2,001"),
    "a flipped byte in a recording": (
        lambda archive: archive.replace(b"RIFF", b"RIFX", 1),
        "damaged|SHA-256 differs",
    ),
    "no manifest": (manifest_is(b""), "library.json cannot be read"),
    "a manifest that is no JSON": (manifest_is(b"{"), "library.json cannot be read"),
    "a manifest that is no UTF-8": (manifest_is(b'{"format": 1, "licence": "\xff"}'), "cannot be read"),
    "a manifest that is a list": (manifest_is(b"[]"), "cannot be read"),
    "a manifest nested too deeply": (manifest_is(b'{"format":' * 100_000), "cannot be read"),
    "a manifest that is too large": (manifest_is(b" " * 9_000_000), "limit is 8,388,608"),
    "a NUL in a text": (in_manifest("voices", 0, "style", value="a\0b"), "NUL"),
    "no format": (without("format"), "format"),
    "a later format": (in_manifest("format", value=2), "has format 2; this server reads format 1"),
    "a format that is text": (in_manifest("format", value="1"), "format"),
    "no voices": (without("voices"), "voices"),
    "voices that are an object": (in_manifest("voices", value={}), "voices"),
    "an unknown field": (in_manifest("voices", 0, "path", value="/etc"), "unknown field `path`"),
    "a voice id that is a number": (in_manifest("voices", 0, "voice_id", value=5), "voice_id"),
    "a voice id that is a path": (
        in_manifest("voices", 3, "voice_id", value="../x"),
        "voice '../x': voice_id must",
    ),
    "a voice id that is a device": (
        in_manifest("voices", 3, "voice_id", value="con"),
        "voice 'con': voice_id must",
    ),
    "a voice id that is too long": (in_manifest("voices", 3, "voice_id", value="x" * 65), "voice_id"),
    "a voice twice": (in_manifest("voices", 3, "voice_id", value="ben"), "voice 'ben' occurs twice"),
    "an unknown speaker": (in_manifest("voices", 0, "primary_speaker", value="S3"), "primary_speaker"),
    "a style that is empty": (in_manifest("voices", 0, "style", value=""), "style"),
    "a name with a line break": (in_manifest("voices", 0, "display_name", value="a\nb"), "display_name"),
    "an unknown partner": (in_manifest("voices", 0, "partner", value="nobody"), "partner 'nobody'"),
    "its own partner": (in_manifest("voices", 0, "partner", value="anna"), "partner 'anna'"),
    "a voice of a recording that is not in it": (
        in_manifest("voices", 3, "audio_prompt", value="other"),
        "lacks the recording 'other' of 'plain'",
    ),
    "a recording twice": (in_manifest("recordings", 1, "prompt_id", value="anna"), "'anna' occurs twice"),
    "a recording that leads out of the folder": (recording_id_is("../../anna"), "prompt_id must"),
    "a recording with an absolute path": (recording_id_is("/tmp/anna"), "prompt_id must"),
    "a recording with a backslash": (recording_id_is("..\\anna"), "prompt_id must"),
    "a recording with the name of a route": (recording_id_is("upload"), "prompt_id must not be"),
    "a recording with the name of a transcript": (recording_id_is("anna.reference"), "nor end in"),
    "a wrong hash": (in_manifest("recordings", 0, "sha256", value="0" * 64), "SHA-256 differs"),
    "a hash that is none": (in_manifest("recordings", 0, "sha256", value="x"), "sha256"),
    "a size that is too small": (in_manifest("recordings", 0, "size", value=100), "limit is 100"),
    "a size that is too large": (in_manifest("recordings", 0, "size", value=10**8), "SHA-256 differs"),
    "a negative size": (in_manifest("recordings", 0, "size", value=-1), "size"),
    "a transcript of tags": (in_manifest("recordings", 0, "transcript", value="[S1] "), "no spoken words"),
    "a transcript that is too long": (
        in_manifest("recordings", 0, "transcript", value="x" * 16_385),
        "transcript",
    ),
    "an unknown source": (
        in_manifest("recordings", 0, "transcript_source", value="txt"),
        "transcript_source",
    ),
    "a recording that is text": (recording_is(b"Hello, world!" * 100), "recordings/anna.wav"),
    "a recording that is too short": (recording_is(wav_file(0.1)), "recordings/anna.wav"),
    "a recording that is too long": (recording_is(wav_file(61.0)), "recordings/anna.wav"),
    "a silent recording": (recording_is(wav_file(1.0, loudness=0.0)), "recordings/anna.wav"),
    "an anchor of no voice": (without("voices", 2), "anchor of 'made', but not this voice"),
    "an anchor twice": (
        lambda archive: edited(
            archive, lambda _, manifest: manifest["anchors"].append(manifest["anchors"][0])
        ),
        "anchor 'made' occurs twice",
    ),
    "an anchor that is a recording": (anchor_is(wav_file(1.0)), "anchors/made.anchor: The anchor is not"),
    "an anchor that is cut": (anchor_is(anchor_file(7)[:-100]), "anchors/made.anchor: The anchor is not"),
    "an anchor that is an archive of nothing": (anchor_is(b"PK\x05\x06" + bytes(18)), "must hold"),
    "an anchor with another hash": (in_manifest("anchors", 0, "sha256", value="1" * 64), "SHA-256 differs"),
    "no anchors": (without("anchors"), "anchors"),
    "a fault that is a path": (in_manifest("anchors", 0, "faults", value=["../x"]), "faults"),
    "a pitch that is text": (in_manifest("anchors", 0, "pitch", value="high"), "pitch"),
    "a missing recording": (renamed("recordings/zoe.wav"), "'recordings/anna.wav' is missing"),
    "a recording in another case": (renamed("recordings/Anna.wav"), "'recordings/anna.wav' is missing"),
    "a file too many": (
        with_entry("recordings/zoe.wav"),
        "'recordings/zoe.wav', which library.json does not",
    ),
    "a file that leads out of the folder": (with_entry("../../zoe.wav"), "'../../zoe.wav', which"),
    "a file with an absolute path": (with_entry("/etc/passwd"), "'/etc/passwd', which"),
    "a file with a NUL in its name": (
        lambda archive: renamed("recordings/anna.wav~x")(archive).replace(b"wav~x", b"wav\0x"),
        "not a file's name",
    ),
    "a folder": (with_entry("recordings/", b""), "not a file's name"),
    "a link": (with_entry("recordings/zoe.wav", b"/etc/passwd", mode=0o120777), "is a link"),
    "a device": (with_entry("recordings/zoe.wav", b"", mode=0o20666), "special file"),
    "a file twice": (with_entry(SECRET, wav_file(1.0)), "'recordings/anna.wav' occurs twice"),
    "the manifest twice": (with_entry(MANIFEST, b"{}"), "'library.json' occurs twice"),
    "an encrypted file": (in_directory(8, b"\x01"), "is encrypted"),
    "LZMA": (compressed(zipfile.ZIP_LZMA), "another method than deflate"),
    "bzip2": (compressed(zipfile.ZIP_BZIP2), "another method than deflate"),
    "another name in front of the file": (
        lambda archive: archive.replace(b"recordings/anna.wav", b"recordings/zoe1.wav", 1),
        "damaged",
    ),
    "a bomb": (bomb, "limit is 209,715,200"),
    "a bomb that hides its size": (lying_bomb, "damaged|SHA-256 differs"),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A data folder with one voice, and a good archive."""

    async def make() -> bytes:
        full, mine = Home(data / "full"), Home(data / "mine")
        for one in (full, mine):
            await one.open()
        await full.furnish()
        await mine.voices.save(Voice("mine", "gloomy"))
        archive = await exported(full)
        for one in (full, mine):
            await one.database.close()
        return archive

    data = tmp_path_factory.mktemp("template")
    archive = asyncio.run(make())
    return data / "mine", archive


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_archive_changes_nothing(
    template: tuple[Path, bytes], tmp_path: Path, name: str
) -> None:
    damage, words = DAMAGES[name]
    folder, archive = template
    damaged = damage(archive)
    shutil.copytree(folder, tmp_path / "home")
    home = Home(tmp_path / "home")
    await home.open()
    before = home.content

    with pytest.raises(ServerError, match=words) as refused:
        await home.library.add(io.BytesIO(damaged), overwrite=True)

    assert isinstance(refused.value, Invalid | UnusableAudio)
    assert refused.value.param == "file"
    assert home.content == before
    assert os.listdir(tmp_path) == ["home"]
    await home.database.close()


def test_there_are_at_least_fifty_damages() -> None:
    assert len(DAMAGES) >= 50
