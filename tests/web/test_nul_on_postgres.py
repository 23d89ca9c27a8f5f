"""A NUL character, which PostgreSQL cannot store, is never an internal error, wherever a client puts it."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from litestar import Litestar
from litestar.testing import AsyncTestClient

from tests.libraries import pack, unpack
from tests.postgres import ON_POSTGRES
from tests.recordings import wav_file

pytestmark = ON_POSTGRES

Client = AsyncTestClient[Litestar]

NUL = "a\0b"
VALID: dict[str, Any] = {
    "text": "Hi",
    "input": "Hi",
    "voice_id": "mine",
    "word": "mine",
    "respelling": "mine",
    "name": "mine",
    "prompt_id": "mine",
    "transcript": "Hi.",
    "type": "audio_sample",
}
"""Values of required fields, by their names."""


async def schema_of(client: Client) -> dict[str, Any]:
    schema: dict[str, Any] = (await client.get("/openapi.json")).json()
    return schema


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of each operation; the parameters of its path are filled in."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            filled = path
            for parameter in operation.get("parameters", []):
                value = "aria" if parameter["name"] in {"voice_id", "name"} else "mine"
                filled = filled.replace(f"{{{parameter['name']}}}", value)
            yield method, filled, operation


def body_fields(schema: dict[str, Any], operation: dict[str, Any], media_type: str) -> dict[str, Any]:
    """Return the fields of an operation's body by name; {} if it has none of `media_type`."""
    content = operation.get("requestBody", {}).get("content", {}).get(media_type, {})
    described: dict[str, Any] = content.get("schema", {})
    if "$ref" in described:
        described = schema["components"]["schemas"][described["$ref"].rpartition("/")[2]]
    fields: dict[str, Any] = described.get("properties", {})
    return fields


async def test_in_a_query(client: Client) -> None:
    statuses = [
        (await client.request(method, f"{path}?{quote(parameter['name'])}=a%00b")).status_code
        for method, path, operation in operations(await schema_of(client))
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
    ]

    assert statuses
    assert max(statuses) < 500


async def test_in_a_path(client: Client) -> None:
    schema = await schema_of(client)
    paths = [(method, path) for path, methods in schema["paths"].items() for method in methods if "{" in path]
    statuses = [
        (await client.request(method, path.replace("{", "a%00{").replace("}", "}b"))).status_code
        for method, path in paths
    ]

    assert set(statuses) == {400}


async def test_in_a_field_of_a_json_body(client: Client) -> None:
    schema = await schema_of(client)
    answers = {}
    for method, path, operation in operations(schema):
        fields = body_fields(schema, operation, "application/json")
        valid = {name: value for name, value in VALID.items() if name in fields}
        for name in fields:
            for value in (NUL, [NUL], {"id": NUL}, {NUL: NUL}):
                answer = await client.request(method, path, json=valid | {name: value})
                answers[method, path, name, str(value)] = answer.status_code

    assert answers
    assert {place: status for place, status in answers.items() if status != 422} == {}


async def test_in_a_field_or_file_name_of_a_form(client: Client) -> None:
    schema = await schema_of(client)
    answers: dict[tuple[str, str, str], int] = {}
    for method, path, operation in operations(schema):
        fields = body_fields(schema, operation, "multipart/form-data")
        files = {name for name in fields if name in {"file", "audio_file", "audio_sample"}}
        valid = {name: VALID.get(name, "a") for name in fields if name not in files}
        for name in fields:
            own = {key: f"own{len(answers)}" for key in valid if key in {"prompt_id", "name"}}
            form = valid | own | ({} if name in files else {name: NUL})
            uploads = {file: (NUL if file == name else "a.wav", wav_file(1.0)) for file in files}
            answers[method, path, name] = (
                await client.request(method, path, data=form, files=uploads)
            ).status_code

    assert answers
    assert {place: status for place, status in answers.items() if status >= 500} == {}


async def test_in_a_text_of_an_archive(client: Client) -> None:
    await client.post(
        "/audio_prompts/upload", data={"prompt_id": "mine"}, files={"audio_file": wav_file(1.0)}
    )
    await client.post("/voice_mappings", json={"voice_id": "mine", "audio_prompt": "mine"})
    archive = await client.get("/voices/export?voice_id=mine&licence=Free")
    files, manifest = unpack(archive.content)

    answers = {}
    for path, owner, key in texts(manifest):
        kept, owner[key] = owner[key], NUL
        upload = {"file": ("voices.zip", pack(files, manifest))}
        answers[path] = (await client.post("/voices/import?replace=true", files=upload)).status_code
        owner[key] = kept

    assert len(answers) > 5
    assert set(answers.values()) == {422}, answers


def texts(value: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the path of each text within `value`, and the object or list and the key that hold it."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        if isinstance(item, str):
            yield f"{path}/{key}", value, key
        elif isinstance(item, dict | list):
            yield from texts(item, f"{path}/{key}")
