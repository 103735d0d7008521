"""Whatever the model server is sent, by its own OpenAPI page or against it: never a 500."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from serving_fixtures import tiny_config

from serving.config import ServingLimits
from serving.http.server import ServerThread

# 424 is what a failure inside a request is answered with: no caller can mend it either.
FAULTS = {424, 500, 501, 502}
MODELS = ("base", "full", "lora", "prefix", "nobody", "", "a/b", "\u2028", "../base")


@pytest.fixture(scope="module")
def server(tiny_home: Path) -> Iterator[ServerThread]:
    limits = ServingLimits(max_total_tokens=40, max_rows=4)
    with ServerThread(tiny_config(tiny_home, limits=limits)) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: ServerThread) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/api-doc/openapi.json", timeout=60).json()
    return found


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_reference_of_the_page_resolves(page: dict[str, Any]) -> None:
    bodies = [route["post"]["requestBody"] for route in page["paths"].values() if "post" in route]
    assert len(bodies) >= 8
    for reference in references(page):
        place: Any = page
        for key in reference.removeprefix("#/").split("/"):
            place = place[key]
    schema = page["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]
    parameters = schema["schema"]["properties"]["parameters"]
    assert "max_new_tokens" in json.dumps(parameters)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from([0, -1, 1e300, 2**63, 2**64, 10**30, 1e-320, "\ud800", "\0", *MODELS])
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
METHODS = ("GET", "POST", "PUT", "PATCH", "OPTIONS")


def fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema; now and then something else in a place."""
    return st.integers(0, 9).flatmap(lambda dice: anything if dice == 0 else exact(schema))


def exact(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "anyOf" in schema:
        return st.one_of([fitting(part) for part in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "object":
        fields = schema.get("properties", {})
        needed = set(schema.get("required", ()))
        return st.fixed_dictionaries(
            {name: fitting(part) for name, part in fields.items() if name in needed},
            optional={name: fitting(part) for name, part in fields.items() if name not in needed},
        ) if fields else st.dictionaries(st.text(max_size=6), anything, max_size=2)  # fmt: skip
    if kind == "array":
        return st.lists(fitting(schema.get("items", {})), max_size=3)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        "string": st.text(max_size=20) | st.sampled_from(MODELS) | st.just("user"),
        "integer": st.integers(-1, 5) | st.integers(),
        "number": st.floats(0, 2) | st.floats(allow_nan=False),
        "boolean": st.booleans(), "null": st.none(),
    }  # fmt: skip
    return simple.get(kind, anything)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_body_of_the_page_s_schemas_gives_a_500(
    server: ServerThread, page: dict[str, Any], data: st.DataObject
) -> None:
    paths = sorted(path for path, route in page["paths"].items() if "post" in route)
    path = data.draw(st.sampled_from(paths))
    schema = page["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = data.draw(fitting(schema))
    if "unload" in path and isinstance(body, dict):
        body["lora_name"] = "nobody"  # the others are needed
    send(server, path, json.dumps(body).encode(), data.draw(st.booleans()))


def send(server: ServerThread, path: str, body: bytes, openai: bool = False) -> int:
    headers = {"content-type": "application/json"} | ({"x-stainless-lang": "x"} if openai else {})
    answer = httpx.post(f"{server.url}{path}", content=body, headers=headers, timeout=120)
    assert answer.status_code not in FAULTS, (path, body, answer.text)
    assert '"http_status_code":424' not in answer.text, (path, body, answer.text)
    assert '"error_type":"generation"' not in answer.text, (path, body, answer.text)
    assert "Traceback" not in answer.text
    return answer.status_code


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/generate", '{"inputs": "a", "parameters": {"repetition_penalty": 1e999}}', 400),
        ("/generate", '{"inputs": "a", "parameters": {"temperature": NaN}}', 400),
        ("/generate", "[" * 30_000, 400),
        ("/generate", '{"inputs": "\\ud800"}', 422),
        ("/tokenize", '{"inputs": "\\ud800"}', 422),
        ("/v1/completions", '{"prompt": "a", "model": "\\ud800"}', 404),
        ("/v1/chat/completions", '{"messages": [{"role": "\\ud800", "content": "a"}]}', 422),
        ("/v1/load_lora_adapter", '{"lora_name": "x", "lora_path": "\\u0000"}', 400),
        ("/v1/load_lora_adapter", '{"lora_name": "a\\nb", "lora_path": "/tmp"}', 400),
        ("/v1/load_lora_adapter", '{"lora_name": "x", "lora_path": "~nobody/x"}', 400),
        ("/v1/chat/completions", '{"model": "lora", "messages": [{"role": "user", "content": "a"}],'
         '"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}', 422),
        ("/v1/chat/completions", '{"model": "lora", "messages": [{"role": "user", "content": "a"}],'
         '"tools": [{"type": "function", "function": {"name": "f", "parameters": '
         '{"properties": 3}}}]}', 422),
        ("/v1/completions", '{"prompt": "a", "logit_bias": {"\\u0663": 1}, "max_tokens": 1}', 200),
        ("/generate", '{"inputs": "a", "parameters": {"top_k": 9223372036854775808}}', 200),
        ("/generate", '{"inputs": "a", "parameters": {"repetition_penalty": 1e308}}', 200),
        ("/generate", '{"inputs": "a", "parameters": {"temperature": 1e-320, "seed": 1}}', 200),
    ],
)  # fmt: skip
def test_requests_that_were_meant_to_break_it(
    server: ServerThread, path: str, body: str, status: int
) -> None:
    assert send(server, path, body.encode()) == status


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.text(max_size=20), method=st.sampled_from(METHODS))
@example(path="models/\n/info", method="GET")
@example(path="models/%00/health", method="GET")
@example(path="models/" + "x" * 5000, method="POST")
def test_no_path_gives_a_500(server: ServerThread, path: str, method: str) -> None:
    from urllib.parse import quote

    url = f"{server.url}/{quote(path.encode('utf-8', 'replace'), safe='/%')}"
    answer = httpx.request(method, url, content=b"{}", timeout=60)
    assert answer.status_code not in FAULTS, (method, path, answer.text)


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: \xff\xfe\r\n"
        b"Content-Length: 2\r\nContent-Type: \xe9\r\n\r\n{}",
        b"GET /info HTTP/1.1\r\nHost: http://[\r\n\r\n",
        b"GET /info HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\n\r\n",
        b"GET /models/\xff\xfe/info HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)  # fmt: skip
def test_bytes_that_are_no_request(server: ServerThread, raw: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(raw)
        line.settimeout(30)
        answer = line.recv(2**16)
    assert not answer.startswith((b"HTTP/1.1 5", b"HTTP/1.1 424"))
    assert httpx.get(f"{server.url}/health", timeout=30).status_code == 200
