import asyncio
import re
import socket
import sys
from pathlib import Path

import pytest

from dia_server.errors import ObjectStoreUnavailable
from dia_server.services import object_store
from dia_server.services.durable_files import READ_SIZE
from dia_server.services.object_store import MARKER, ObjectStore, StorageUnusable, connect
from tests.storage import BOTH_STORAGES, ON_FILE, ON_S3, S3, SECRET, open_store


@pytest.fixture
async def store(storage_url: str) -> ObjectStore:
    store = open_store(storage_url)
    await store.mark()
    return store


@BOTH_STORAGES
async def test_an_object_is_stored_once_until_it_is_removed(store: ObjectStore) -> None:
    assert await store.status("things/a.wav") is None
    assert await store.list("things") == {}
    with pytest.raises(FileNotFoundError):
        await store.read("things/a.wav")

    assert await store.create("things/a.wav", b"first")
    assert not await store.create("things/a.wav", b"second")
    assert await store.read("things/a.wav") == b"first"
    await store.replace("things/a.wav", b"third")
    await store.create("other/b.wav", b"")
    status = await store.status("things/a.wav")
    assert status is not None
    assert (status.size, await store.list("things")) == (5, {"a.wav": status.modified})

    for _ in range(2):
        await store.remove("things/a.wav")
    assert await store.list("things") == {}
    assert await store.read("other/b.wav") == b""


@BOTH_STORAGES
async def test_of_two_servers_one_stores_an_object(store: ObjectStore, storage_url: str) -> None:
    other = open_store(storage_url)
    for number in range(20):
        name = f"things/{number}.wav"
        created = await asyncio.gather(
            store.create(name, b"first" * 9000), other.create(name, b"other" * 9000)
        )
        assert sorted(created) == [False, True]
        assert await store.read(name) == (b"first" if created[0] else b"other") * 9000


@BOTH_STORAGES
async def test_an_object_is_read_in_chunks(store: ObjectStore) -> None:
    content = bytes(range(256)) * 5000
    await store.create("things/a.wav", content)

    size, chunks = await store.open("things/a.wav")
    received = [chunk async for chunk in chunks]
    assert (size, b"".join(received)) == (len(content), content)
    assert max(map(len, received)) <= READ_SIZE


@BOTH_STORAGES
async def test_an_object_that_is_removed_meanwhile_is_read_to_its_end(store: ObjectStore) -> None:
    content = bytes(range(256)) * 5000
    await store.create("things/a.wav", content)
    _, chunks = await store.open("things/a.wav")
    received = [await anext(chunks)]

    await store.remove("things/a.wav")
    received += [chunk async for chunk in chunks]
    assert b"".join(received) == content


@BOTH_STORAGES
async def test_another_place_is_neither_read_nor_written(storage_url: str) -> None:
    """The disk is not mounted, or DIA_STORAGE has a slip."""
    store = open_store(storage_url, "me")
    with pytest.raises(
        ObjectStoreUnavailable, match=f"create an object {MARKER} in it, with the content me$"
    ):
        await store.read("things/a.wav")
    for request in (store.create("things/a.wav", b"audio"), store.list("things")):
        with pytest.raises(ObjectStoreUnavailable, match="DIA_STORAGE right"):
            await request
    await store.mark()
    assert await store.list("things") == {}


@BOTH_STORAGES
async def test_the_storage_of_another_database_is_left_alone(store: ObjectStore, storage_url: str) -> None:
    await store.create("things/a.wav", b"audio")
    other = open_store(storage_url, "another")
    for request in (other.mark(), other.create("things/b.wav", b"audio"), other.list("things")):
        with pytest.raises(ObjectStoreUnavailable, match="belongs to another database"):
            await request
    assert (await store.list("things")).keys() == {"a.wav"}


@ON_S3
async def test_a_storage_that_is_away_is_unavailable_until_it_is_back(
    store: ObjectStore, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create("things/a.wav", b"audio")
    s3.stop()
    try:
        for request in (
            store.create("things/b.wav", b"audio"),
            store.replace("things/b.wav", b"audio"),
            store.status("things/a.wav"),
            store.read("things/a.wav"),
            store.list("things"),
            store.remove("things/a.wav"),
        ):
            with pytest.raises(ObjectStoreUnavailable) as away:
                await request
            assert str(away.value).endswith(": Connection refused")
            assert away.value.retry_after
    finally:
        s3.start()
    assert await store.read("things/a.wav") == b"audio"


@ON_S3
async def test_a_storage_that_does_not_answer_is_unavailable(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ObjectStoreUnavailable, match="no answer in time"):
            await open_store("s3://bucket").status("things/a.wav")


async def answer_with_secrets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = f"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>{SECRET}</StringToSign></Error>".encode()
    writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


@ON_S3
async def test_errors_tell_no_secrets(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await asyncio.start_server(answer_with_secrets, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")

    with pytest.raises(ObjectStoreUnavailable) as refused:
        await open_store("s3://bucket").list("things")
    assert str(refused.value) == "The storage cannot be read: SignatureDoesNotMatch"
    server.close()


CONTENT = bytes(range(256)) * 5000


async def answer_in_parts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a GET with at most a third of CONTENT, then close the connection."""
    request = await reader.readuntil(b"\r\n\r\n")
    asked = re.search(rb"(?i)\r\nrange: bytes=(\d+)-", request)
    start = int(asked[1]) if asked else 0
    head = "206 Partial Content" if asked else "200 OK"
    lines = [
        f"HTTP/1.1 {head}",
        f"Content-Length: {len(CONTENT) - start}",
        f"Content-Range: bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}",
        "Last-Modified: Sun, 29 Nov 2026 00:00:00 GMT",
        'ETag: "same"',
    ]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + CONTENT[start : start + len(CONTENT) // 3 + 1])
    await writer.drain()
    writer.close()


@ON_S3
async def test_a_download_goes_on_after_a_lost_connection(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await asyncio.start_server(answer_in_parts, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(object_store, "RETRIES", 2)

    size, chunks = await open_store("s3://bucket").open("things/a.wav")
    assert (size, b"".join([chunk async for chunk in chunks])) == (len(CONTENT), CONTENT)
    server.close()


@ON_S3
def test_a_missing_bucket_is_reported(storage_url: str) -> None:
    with pytest.raises(StorageUnusable, match=r"^DIA_STORAGE: s3://missing/x: .*: NoSuchBucket$"):
        object_store.check("s3://missing/x")
    object_store.check(storage_url)


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageUnusable, match=r"^DIA_STORAGE: there is no folder .*/a b: create it"):
        object_store.check(f"file://{tmp_path}/a%20b")
    assert not (tmp_path / "a b").exists()


def test_without_obstore_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(StorageUnusable, match=r"install dia-server\[storage\]"):
        open_store(f"file://{tmp_path}")


@ON_FILE
async def test_a_disk_that_is_unmounted_is_not_written(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "storage").rename(tmp_path / "away")
    with pytest.raises(ObjectStoreUnavailable, match="is its disk mounted"):
        await store.create("things/a.wav", b"audio")
    (tmp_path / "storage").mkdir()
    with pytest.raises(ObjectStoreUnavailable, match="is its disk mounted"):
        await store.create("things/a.wav", b"audio")
    (tmp_path / "storage").rmdir()

    (tmp_path / "away").rename(tmp_path / "storage")
    assert await store.create("things/a.wav", b"audio")


def test_a_missing_account_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StorageUnusable, match="az://container cannot be used: MissingAccount"):
        open_store("az://container")


@BOTH_STORAGES
async def test_once_it_is_marked_a_storage_needs_no_database(storage_url: str) -> None:
    """A finished job is written while the database is away, and completed when it is back."""
    ids = iter(["me"])

    async def owner() -> str:
        return next(ids)

    store = connect(storage_url, owner)
    await store.mark()
    assert await store.create("things/a.wav", b"audio")
    assert (await store.list("things")).keys() == {"a.wav"}


@ON_FILE
async def test_what_a_killed_server_left_in_a_folder_is_removed(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create("things/a.wav", b"audio")
    leftover = tmp_path / "storage" / "things" / ".b.tmp"
    leftover.write_bytes(b"half")

    await store.remove_leftovers()
    assert leftover.exists()  # another server may be writing it
    monkeypatch.setattr(object_store, "GRACE_S", 0.0)
    await store.remove_leftovers()
    assert not leftover.exists()
    assert await store.read("things/a.wav") == b"audio"
