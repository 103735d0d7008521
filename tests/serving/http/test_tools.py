"""Tools and grammars: what schemas mean, what histories of calls become, what a cut call leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import serving_models as tiny
from pydantic import BaseModel
from serving_fixtures import tiny_config

from serving.completion.json_schema import closed
from serving.completion.messages import prints_arguments
from serving.http.server import ServerThread

USER = {"role": "user", "content": "the river sings under"}
TGI_EXAMPLE = {
    "properties": {
        "location": {"type": "string", "maxLength": 8},
        "activity": {"type": "string", "maxLength": 8},
        "animals_seen": {"type": "integer", "minimum": 1, "maximum": 5},
        "animals": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 4}},
    },
    "required": ["location", "activity", "animals_seen", "animals"],
}
# As Qwen's and Llama's templates show calls: arguments as an object, results by their id.
OBJECTS = (
    "{% if tools %}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}<{{ c.function.name }}"
    "{% for k, v in c.function.arguments.items() %} {{ k }}={{ v | tojson }}{% endfor %}>"
    "{% endfor %}{% if m.tool_call_id %}[{{ m.tool_call_id }}]{% endif %}"
    "{{ '\n' }}{% endfor %}"
)
JSON = OBJECTS.replace(
    "{% for k, v in c.function.arguments.items() %} {{ k }}={{ v | tojson }}{% endfor %}",
    " {{ c.function.arguments | tojson }}",
)
TEXTS = JSON.replace(" | tojson", "")


@pytest.fixture(scope="module")
def server(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    """Full models whose templates show calls in several ways, beside `lora`, which shows none."""
    folder = tmp_path_factory.mktemp("templates")
    models = [("lora", tiny_home / "lora")]
    for name, template in (("objects", OBJECTS), ("json", JSON), ("texts", TEXTS)):
        models.append((name, tiny.save_checkpoint("llama", folder / name, template=template)))
    with ServerThread(tiny_config(tiny_home, models=tuple(models))) as running:
        yield running


def post(server: ServerThread, route: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}/{route}", json=body, timeout=60)


def chat(server: ServerThread, **wish: Any) -> httpx.Response:
    return post(server, "v1/chat/completions", {"model": "lora", "messages": [USER], **wish})


def tool(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, **({} if parameters is None else {"parameters": parameters})}
    return {"type": "function", "function": {**function, **more}}


def called(server: ServerThread, *tools: dict[str, Any], **wish: Any) -> tuple[str, Any]:
    """(function, arguments) of a call; told whole and as a stream, these are the same."""
    ask = {"model": "objects", "tools": list(tools), "tool_choice": "required",
           "max_tokens": 200, "seed": 1, **wish}  # fmt: skip
    reply = chat(server, **ask)
    assert reply.status_code == 200, reply.text
    (choice,) = reply.json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    lines = chat(server, **ask, stream=True).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    parts = [part["choices"][0]["delta"]["tool_calls"][0]["function"] for part in chunks]
    assert "".join(part["arguments"] for part in parts) == call["function"]["arguments"]
    assert [part["name"] for part in parts if part["name"]] == [call["function"]["name"]]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


def answers(server: ServerThread, grammar: dict[str, Any], seeds: int = 3) -> list[Any]:
    """What three draws under a JSON grammar say."""
    found = []
    for seed in range(seeds):
        parameters = {"grammar": {"type": "json", "value": grammar}, "max_new_tokens": 200,
                      "temperature": 0.9, "seed": seed}  # fmt: skip
        reply = post(server, "generate", {"inputs": "a", "parameters": parameters})
        assert reply.status_code == 200, reply.text
        found.append(json.loads(reply.json()["generated_text"]))
    return found


@pytest.mark.parametrize(
    "grammar",
    [
        {"properties": {"location": {"type": "string", "maxLength": 5}}, "required": ["location"]},
        TGI_EXAMPLE,
        {"type": "object", "required": ["n"], "properties": {
            "n": {"properties": {"k": {"type": "boolean"}}, "required": ["k"]}}},
        {"required": ["p"], "properties": {"p": {"$ref": "#/$defs/P"}},
         "$defs": {"P": {"properties": {"x": {"type": "boolean"}}, "required": ["x"]}}},
        {"properties": {"k": {"items": {"type": "boolean"}, "maxItems": 2, "uniqueItems": False}},
         "required": ["k"]},
    ],
)  # fmt: skip
def test_a_grammar_gives_an_object_with_the_listed_keys_only(
    server: ServerThread, grammar: dict[str, Any]
) -> None:
    for answer in answers(server, grammar):
        assert isinstance(answer, dict)
        assert answer.keys() == set(grammar["required"])
        for key, part in grammar["properties"].items():
            if "properties" in part:
                assert answer[key].keys() == set(part["required"])


def test_parts_that_are_put_together_do_not_forbid_each_other(server: ServerThread) -> None:
    """Closed on its own, each part would forbid the other's key."""
    grammar = {
        "properties": {"a": {"type": "boolean"}},
        "required": ["a", "b"],
        "allOf": [{"properties": {"b": {"type": "boolean"}}}],
        "maxProperties": 2,
    }
    for answer in answers(server, grammar):
        assert answer.keys() == {"a", "b"}
        assert all(isinstance(value, bool) for value in answer.values())
    opened = {"properties": {"a": {"type": "boolean"}}, "required": ["a"], "minProperties": 2,
              "patternProperties": {"^[xy]$": {"type": "boolean"}}, "maxProperties": 2,
              "additionalProperties": False}  # fmt: skip
    assert all(len(answer) == 2 for answer in answers(server, opened))


BOOLEAN = {"type": "boolean"}
AJAR = {"type": "object", "properties": {"a": BOOLEAN}, "additionalProperties": BOOLEAN}


@pytest.mark.parametrize(
    ("schema", "want"),
    [
        (AJAR, AJAR),
        ({"properties": {}}, {"type": "object", "properties": {}, "additionalProperties": False}),
        ({"type": "object"}, {"type": "object"}),
        ({"enum": [{"properties": 1}]}, {"enum": [{"properties": 1}]}),
        # Names of properties are no words of the schema.
        ({**AJAR, "properties": {"items": BOOLEAN, "properties": BOOLEAN, "required": BOOLEAN}},
         {**AJAR, "properties": {"items": BOOLEAN, "properties": BOOLEAN, "required": BOOLEAN}}),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"items": BOOLEAN}}},
         {"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": BOOLEAN}}}),
    ],
)  # fmt: skip
def test_what_a_schema_means(schema: dict[str, Any], want: dict[str, Any]) -> None:
    before = json.dumps(schema)
    assert closed(schema) == want
    assert json.dumps(schema) == before


def test_a_schema_nested_too_deeply_is_refused(server: ServerThread) -> None:
    schema: dict[str, Any] = {"type": "boolean"}
    for _ in range(400):
        schema = {"type": "array", "items": schema}
    wish = {"properties": {"a": schema}}
    body = {"inputs": "a", "parameters": {"grammar": {"type": "json", "value": wish}}}
    assert post(server, "generate", body).status_code == 422
    assert chat(server, tools=[tool("f", wish)]).status_code == 422


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": {"type": "integer"}}, "contains"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "string", "format": "colour"}, "colour"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
    ],
)
def test_what_the_grammar_engine_lacks_is_refused_by_name(
    server: ServerThread, part: dict[str, Any], word: str
) -> None:
    schema = {"type": "object", "properties": {"k": part}, "required": ["k"]}
    body = {"inputs": "a", "parameters": {"grammar": {"type": "json", "value": schema}}}
    for reply in (
        post(server, "generate", body),
        chat(server, response_format={"type": "json_schema", "json_schema": {"schema": schema}}),
        chat(server, tools=[tool("f", schema)], tool_choice="required"),
    ):
        assert reply.status_code == 422
        assert "grammar is not valid" in reply.json()["error"]
        assert word in reply.json()["error"]


class Place(BaseModel):
    country: bool


class Trip(BaseModel):
    place: Place
    days: bool


class Node(BaseModel):
    leaf: bool
    child: Node | None


@pytest.mark.parametrize("model", [Trip, Node])
def test_models_of_models_and_of_themselves_are_parameters(
    server: ServerThread, model: type[BaseModel]
) -> None:
    schema = model.model_json_schema()
    assert "$defs" in schema
    for seed in range(3):
        name, arguments = called(server, tool("plan", schema), temperature=0.7, seed=seed)
        assert name == "plan"
        assert model.model_validate(arguments).model_dump() == arguments


def test_definitions_of_two_tools_stay_apart(server: ServerThread) -> None:
    def with_part(kind: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": {"p": {"$ref": "#/$defs/P"}}, "required": ["p"],
                "$defs": {"P": kind}}  # fmt: skip

    tools = [tool("one", with_part({"type": "boolean"})), tool("two", with_part({"const": "z"}))]
    for choice, kind in (("one", bool), ("two", str)):
        assert isinstance(called(server, *tools, tool_choice=choice)[1]["p"], kind)


FLAG = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}


@pytest.mark.parametrize(
    ("made", "keys"),
    [
        (tool("no_tool", FLAG), {"on"}),
        (tool("function", FLAG), {"on"}),
        (tool('say "hi"', FLAG), {"on"}),
        (tool("inner", {**FLAG, "properties": {"on": {}, "_name": {"type": "boolean"}},
                        "required": ["_name"]}), {"_name"}),
        (tool("wraps", {"properties": {"arguments": {"type": "boolean"},
                                       "name": {"type": "boolean"}},
                        "required": ["name", "arguments"]}), {"name", "arguments"}),
        (tool("any", {"anyOf": [FLAG, {**FLAG, "required": ["on"]}]}), {"on"}),
        (tool("none"), set()),
        (tool("empty", {}), set()),
        (tool("closed", {"type": "object", "properties": {}}), set()),
    ],
)  # fmt: skip
def test_names_and_shapes_that_could_be_mistaken(
    server: ServerThread, made: dict[str, Any], keys: set[str]
) -> None:
    name, arguments = called(server, made)
    assert name == made["function"]["name"]
    assert arguments.keys() >= keys
    assert arguments.keys() <= keys | {"on"}


def test_free_form_parameters_take_any_key(server: ServerThread) -> None:
    schema = {"type": "object", "minProperties": 1, "maxProperties": 1,
              "patternProperties": {"^[xy]$": BOOLEAN}, "additionalProperties": False}  # fmt: skip
    ((_, value),) = called(server, tool("free", schema), seed=2)[1].items()
    assert isinstance(value, bool)


def test_a_tool_that_has_the_name_of_none(server: ServerThread) -> None:
    """Where the model may decline, the word for that is one no tool has."""
    kinds = set()
    for seed in range(30):
        ask = {"tools": [tool("no_tool", FLAG)], "seed": seed, "max_tokens": 40, "temperature": 2}
        message = chat(server, **ask).json()["choices"][0]["message"]
        if "tool_calls" in message:
            assert message["tool_calls"][0]["function"]["name"] == "no_tool"
        kinds.add("tool_calls" in message)
        if len(kinds) == 2:
            break
    assert kinds == {True, False}


@pytest.mark.parametrize(
    ("tools", "more", "words"),
    [
        ([tool("f", {"type": "string"})], {}, "`parameters` of f is no JSON schema of an object"),
        ([tool("f", ["x"])], {}, "`parameters` of f is no JSON schema of an object"),
        ([tool("")], {}, "a tool needs a `function` with a `name`"),
        ([tool("f"), tool("f")], {}, "two tools have the name f"),
        ([{"type": "custom", "custom": {"name": "f"}}], {}, "a tool needs a `function`"),
        ([], {"tool_choice": "required"}, "Tool with name required not found"),
        ([], {"tool_choice": {"type": "function", "function": {"name": "f"}}}, "name f not found"),
    ],
)
def test_tools_that_cannot_be_called_are_refused(
    server: ServerThread, tools: list[Any], more: dict[str, Any], words: str
) -> None:
    reply = chat(server, tools=tools, **more)
    assert reply.status_code == 422
    assert reply.json()["error_type"] == "tool_error"
    assert words in reply.json()["error"]


def test_a_format_of_text_beside_tools_is_none(server: ServerThread) -> None:
    for tools in ([tool("f", FLAG)], []):
        reply = chat(server, tools=tools, response_format={"type": "text"}, max_tokens=40)
        assert reply.status_code == 200
    json_too = chat(server, tools=[tool("f")], response_format={"type": "json_object"})
    assert json_too.json()["error_type"] == "tool_error"


@pytest.mark.parametrize("count", [1, 3, 9, 14])
@pytest.mark.parametrize("openai_form", [True, False])
def test_a_cut_call_shows_no_grammar_and_has_a_name(
    server: ServerThread, count: int, openai_form: bool
) -> None:
    headers = {"x-stainless-lang": "x"} if openai_form else {}
    long = {"type": "object", "properties": {"t": {"type": "string", "minLength": 90}},
            "required": ["t"]}  # fmt: skip
    ask = {"model": "lora", "messages": [USER], "tools": [tool("f", long)], "max_tokens": count,
           "tool_choice": "required", "seed": 4, "logprobs": True}  # fmt: skip
    url = f"{server.url}/v1/chat/completions"
    (choice,) = httpx.post(url, json=ask, headers=headers).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None
    reply = httpx.post(url, json={**ask, "stream": True}, headers=headers)
    chunks = [json.loads(x[6:]) for x in reply.text.splitlines() if x.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    if "tool_calls" in choice["message"]:
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] == calls[0]["function"]["name"] == "f"
        text = "".join(part["function"]["arguments"] for part in calls)
        assert text == call["function"]["arguments"]
        assert text.startswith("{")
    else:
        assert choice["message"]["content"] == ""
        assert [delta["content"] for delta in deltas] == [""]


def test_ids_of_calls_count_on(server: ServerThread) -> None:
    def ids(*earlier: str) -> list[str]:
        calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}}
                 for i in earlier]  # fmt: skip
        results = [{"role": "tool", "content": "1", "tool_call_id": i} for i in earlier]
        before = [USER, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
        ask = {"tools": [tool("f")], "tool_choice": "required", "n": 2, "max_tokens": 40}
        told = chat(server, messages=before if earlier else [USER], **ask).json()
        return [choice["message"]["tool_calls"][0]["id"] for choice in told["choices"]]

    assert ids() == ["0", "1"]
    assert ids("0") == ["1", "2"]
    assert ids("call_a", "call_b") == ["2", "3"]
    assert ids("7") == ["8", "9"]


HISTORY = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function",
         "function": {"name": "f", "arguments": '{"city": "Rome", "n": 2}'}}]},
    {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("objects", 'assistant: <f city="Rome" n=2>'),
        ("json", 'assistant: <f {"city": "Rome", "n": 2}>'),
        ("texts", 'assistant: <f {"city": "Rome", "n": 2}>'),
        ("lora", 'assistant: [{"id":"c1","type":"function","function":{"name":"f",'
                 '"arguments":"{\\"city\\": \\"Rome\\", \\"n\\": 2}"}}]'),
    ],
)  # fmt: skip
def test_calls_of_a_history_reach_the_template(
    server: ServerThread, model: str, shown: str
) -> None:
    reply = post(server, "chat_tokenize", {"model": model, "messages": HISTORY})
    text = reply.json()["templated_text"]
    assert text.splitlines()[1] == shown
    if model != "lora":
        assert text.splitlines()[2] == "tool: sunny[c1]"
    # A client may send an object as well, which TGI's own do.
    objects = json.loads(json.dumps(HISTORY))
    objects[1]["tool_calls"][0]["function"]["arguments"] = {"city": "Rome", "n": 2}
    again = post(server, "chat_tokenize", {"model": model, "messages": objects}).json()
    if model != "lora":
        assert again["templated_text"] == text
    assert chat(server, model=model, messages=HISTORY, max_tokens=2).is_success


@pytest.mark.parametrize(
    ("part", "wants_text"),
    [
        ("{{ tool['function']['arguments'] + '\\n' }}", True),  # DeepSeek R1
        ("{{- tool_call.arguments | tojson }}", False),  # Qwen 2.5
        ("{{- tool_call.function.arguments|tojson -}}", False),  # Llama 3.1
        ("{{ call['function']['arguments'] }}", True),
        ("{% for k in arguments %}{{ k }}{% endfor %}", False),
        ("{%- for k, v in tool_call.arguments|items %}{{ k }}{% endfor %}", False),  # Qwen 3 Coder
        ("{% set arguments = c.arguments %}{% if arguments is string %}{{ arguments }}{% endif %}",
         False),
        ("{{ c.function | tojson }}", False),  # Mistral
    ],
)  # fmt: skip
def test_templates_that_print_arguments_are_told_from_others(part: str, wants_text: bool) -> None:
    assert prints_arguments(part) is wants_text


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', 3])
def test_arguments_that_are_no_object_are_refused(server: ServerThread, arguments: Any) -> None:
    history = json.loads(json.dumps(HISTORY))
    history[1]["tool_calls"][0]["function"]["arguments"] = arguments
    reply = chat(server, messages=history)
    assert reply.status_code == 422
    assert "are no JSON object" in reply.json()["error"]


def test_openai_adds_a_streamed_answer_up(server: ServerThread) -> None:
    api = openai.OpenAI(base_url=f"{server.url}/v1", api_key="-")
    messages: Any = [USER]
    wishes: list[dict[str, Any]] = [
        {}, {"n": 2}, {"tools": [tool("f", FLAG, strict=True)], "tool_choice": "required"},
    ]  # fmt: skip
    for more in wishes:
        with api.chat.completions.stream(
            model="objects", messages=messages, max_tokens=90, seed=1, **more
        ) as stream:
            for _ in stream:
                pass
            told = stream.current_completion_snapshot
        assert {choice.message.role for choice in told.choices} == {"assistant"}
        if "tools" in more:
            (call,) = told.choices[0].message.tool_calls or ()
            assert call.type == "function"
            assert json.loads(call.function.arguments).keys() == {"on"}
        else:
            whole = api.chat.completions.create(
                model="objects", messages=messages, max_tokens=90, seed=1, **more
            )
            assert [c.message.content for c in told.choices] == [
                c.message.content for c in whole.choices
            ]
