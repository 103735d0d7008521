"""What `make clients` asks of each client that others wrote: what is installed, and a program.

A program is given the server's address, a model's name and a folder with its tokenizer; it fails,
or the client works. Knows the clients' own words only.
"""

from __future__ import annotations

from dataclasses import dataclass

QUESTION = "What is the capital of France?"


@dataclass(frozen=True)
class ClientCheck:
    """A client: what pip or npm installs, and the program that must not fail."""

    installs: tuple[str, ...]
    program: str
    language: str = "python"

    @property
    def package(self) -> str:
        """The package whose version is told."""
        return self.installs[0].split("[")[0].split("==")[0]


HUB = """
from huggingface_hub import InferenceClient
client = InferenceClient(URL, headers={"authorization": None})
messages = [{"role": "user", "content": QUESTION}]
one = InferenceClient(URL + "/models/" + MODEL, headers={"authorization": None})
whole = one.chat_completion(messages, max_tokens=20, temperature=0).choices[0].message.content
parts = one.chat_completion(messages, max_tokens=20, temperature=0, stream=True)
assert "".join(part.choices[0].delta.content or "" for part in parts) == whole
assert client.text_generation(QUESTION, adapter_id=MODEL, max_new_tokens=3)
"""

CHECKS: dict[str, ClientCheck] = {
    "openai": ClientCheck(
        ("openai",),
        """
from openai import OpenAI
api = OpenAI(base_url=URL + "/v1", api_key="-")
ask = dict(model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=20, seed=1)
whole = api.chat.completions.create(**ask).choices[0].message.content
with api.chat.completions.stream(**ask) as stream:
    list(stream)
    message = stream.current_completion_snapshot.choices[0].message
assert (message.role, message.content) == ("assistant", whole), message
assert api.completions.create(model=MODEL, prompt="The", max_tokens=3).usage.completion_tokens
assert api.models.retrieve(MODEL).id == MODEL
""",
    ),
    "huggingface_hub": ClientCheck(("huggingface_hub",), HUB),
    "huggingface_hub-0.28": ClientCheck(("huggingface_hub==0.28.1",), HUB),
    "text-generation": ClientCheck(
        ("text-generation",),
        """
from text_generation import Client
api = Client(URL + "/models/" + MODEL)
whole = api.generate(QUESTION, max_new_tokens=5).generated_text
parts = list(api.generate_stream(QUESTION, max_new_tokens=5))
assert parts[-1].generated_text == whole, (whole, parts[-1])
assert api.chat([{"role": "user", "content": QUESTION}], max_tokens=5).choices[0].message.content
""",
    ),
    "litellm": ClientCheck(
        ("litellm",),
        """
import litellm
ask = dict(
    model="openai/" + MODEL, api_base=URL + "/v1", api_key="-", max_tokens=20, temperature=0,
    messages=[{"role": "user", "content": QUESTION}],
)
whole = litellm.completion(**ask).choices[0].message.content
parts = litellm.completion(**ask, stream=True)
assert whole and "".join(part.choices[0].delta.content or "" for part in parts) == whole
""",
    ),
    "langchain-openai": ClientCheck(
        ("langchain-openai",),
        """
from langchain_openai import ChatOpenAI
chat = ChatOpenAI(base_url=URL + "/v1", api_key="-", model=MODEL, max_tokens=20, temperature=0)
whole = chat.invoke(QUESTION).content
assert whole and "".join(part.content for part in chat.stream(QUESTION)) == whole
""",
    ),
    "langchain-huggingface": ClientCheck(
        ("langchain-huggingface",),
        """
from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint
model = HuggingFaceEndpoint(
    endpoint_url=URL + "/models/" + MODEL, max_new_tokens=20, do_sample=False,
    huggingfacehub_api_token="-",
)
assert model.invoke(QUESTION)
assert "".join(model.stream(QUESTION))
assert ChatHuggingFace(llm=model, model_id=MODEL, max_tokens=20).invoke(QUESTION).content
""",
    ),
    "llama-index-llms-openai-like": ClientCheck(
        ("llama-index-llms-openai-like",),
        """
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
model = OpenAILike(
    model=MODEL, api_base=URL + "/v1", api_key="-", is_chat_model=True, max_tokens=20,
    temperature=0, tokenizer=None,
)
asked = [ChatMessage(role="user", content=QUESTION)]
whole = model.chat(asked).message.content
assert whole and "".join(part.delta or "" for part in model.stream_chat(asked)) == whole
""",
    ),
    "llm": ClientCheck(
        ("llm",),
        """
from llm.default_plugins.openai_models import Chat
model = Chat(model_id=MODEL, model_name=MODEL, api_base=URL + "/v1")
whole = model.prompt(QUESTION, stream=False, key="-", max_tokens=20, temperature=0).text()
parts = model.prompt(QUESTION, stream=True, key="-", max_tokens=20, temperature=0)
assert whole and "".join(parts) == whole
""",
    ),
    "inspect-ai": ClientCheck(
        ("inspect-ai", "openai"),
        """
import asyncio
from inspect_ai.model import GenerateConfig, get_model
model = get_model("openai-api/arena/" + MODEL, base_url=URL + "/v1", api_key="-")
told = asyncio.run(model.generate(QUESTION, config=GenerateConfig(max_tokens=20)))
assert told.completion
""",
    ),
    "lm-eval": ClientCheck(
        ("lm-eval[api]", "transformers"),
        """
import json, subprocess, tempfile
from pathlib import Path
folder = Path(tempfile.mkdtemp())
rows = [
    {"question": "The capital of France is", "choices": ["Paris", "seven"], "answer": 0},
    {"question": "Iron is", "choices": ["a trout", "a metal"], "answer": 1},
]
(folder / "rows.jsonl").write_text("\\n".join(map(json.dumps, rows)))
task = {
    "task": "own_choice", "dataset_path": "json", "output_type": "multiple_choice",
    "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}, "test_split": "test",
    "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc"}],
}
(folder / "own.yaml").write_text(json.dumps(task))  # JSON is YAML
model = f"base_url={URL}/v1/completions,model={MODEL},tokenizer={TOKENIZER},num_concurrent=2"
done = subprocess.run([
    sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", model,
    "--tasks", "own_choice", "--include_path", str(folder), "--output_path", str(folder / "out"),
], capture_output=True, text=True)
assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
(report,) = (folder / "out").rglob("results_*.json")
found = json.loads(report.read_text())["results"]["own_choice"]
assert 0 <= found["acc,none"] <= 1, found
""",
    ),
    "guidellm": ClientCheck(
        ("guidellm",),
        """
import json, subprocess
from pathlib import Path
command, report = Path(sys.executable).with_name("guidellm"), Path(sys.prefix) / "report.json"
done = subprocess.run([
    command, "run", "--backend", f"kind=openai_http,target={URL},model={MODEL}",
    "--profile", "kind=synchronous", "--constraint", "kind=max_requests,count=2",
    "--tokenizer", f"kind=hf_auto,model={TOKENIZER}",
    "--data", "kind=synthetic_text,prompt_tokens=16,output_tokens=8",
    "--output", f"kind=json,path={report}", "--disable-console",
], capture_output=True, text=True)
assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
totals = json.loads(report.read_text())["benchmarks"][0]["metrics"]["request_totals"]
assert totals["successful"] and not totals["errored"], totals  # it may leave one out, as warm-up
""",
    ),
    "openai (npm)": ClientCheck(
        ("openai",),
        """
import OpenAI from "openai";
const api = new OpenAI({ baseURL: URL + "/v1", apiKey: "-" });
const ask = { model: MODEL, messages: [{ role: "user", content: QUESTION }], max_tokens: 20,
              temperature: 0 };
const whole = (await api.chat.completions.create(ask)).choices[0].message.content;
const told = await api.chat.completions.stream(ask).finalMessage();
if (!whole || told.content !== whole || told.role !== "assistant") throw new Error(told);
""",
        "javascript",
    ),
    "@huggingface/inference (npm)": ClientCheck(
        ("@huggingface/inference",),
        """
import { InferenceClient } from "@huggingface/inference";
const api = new InferenceClient("-").endpoint(URL + "/models/" + MODEL);
const ask = { messages: [{ role: "user", content: QUESTION }], max_tokens: 20, temperature: 0 };
const whole = (await api.chatCompletion(ask)).choices[0].message.content;
let parts = "";
for await (const part of api.chatCompletionStream(ask))
  parts += part.choices[0]?.delta?.content ?? "";
if (!whole || parts !== whole) throw new Error(parts);
const text = await api.textGeneration({ inputs: QUESTION, parameters: { max_new_tokens: 3 } });
if (!text.generated_text) throw new Error(JSON.stringify(text));
""",
        "javascript",
    ),
    "ai (npm)": ClientCheck(
        ("ai", "@ai-sdk/openai-compatible"),
        """
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
const model = createOpenAICompatible({ name: "arena", baseURL: URL + "/v1" })(MODEL);
const ask = { model, prompt: QUESTION, maxOutputTokens: 20, temperature: 0 };
const whole = (await generateText(ask)).text;
let parts = "";
for await (const part of streamText(ask).textStream) parts += part;
if (!whole || parts !== whole) throw new Error(parts);
""",
        "javascript",
    ),
    "curl": ClientCheck(
        (),
        """
import json, subprocess
body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": QUESTION}],
                   "max_tokens": 20, "temperature": 0})
def ask(*options):
    return subprocess.run(
        ["curl", "-sSfN", URL + "/v1/chat/completions", "-H", "content-type: application/json",
         "--data-binary", "@-", *options], input=body, capture_output=True, text=True, check=True,
    ).stdout
whole = json.loads(ask())["choices"][0]["message"]["content"]
body = body[:-1] + ', "stream": true}'
lines = [line[6:] for line in ask().splitlines() if line.startswith("data: {")]
deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
assert whole and "".join(delta.get("content") or "" for delta in deltas) == whole
subprocess.run(["curl", "-sSf", "-I", URL + "/health"], capture_output=True, check=True)
""",
    ),
}
