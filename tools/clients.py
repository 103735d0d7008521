"""Tries clients that others wrote against a server: each in an environment of its own.

`make clients` runs this: `.clients/NAME` gets a virtual environment with the client, the check of
that name runs in it against `arena serve`, and docs/clients.md gets the table of what passed. Knows
pip and the checks; does not know the server's insides.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".clients"
PAGE = ROOT / "docs" / "clients.md"
MODEL = "starter-lora"
QUESTION = "What is the capital of France?"
# Name, what pip installs, and a program: URL and model are its arguments; it fails or prints.
CHECKS: dict[str, tuple[tuple[str, ...], str]] = {
    "openai": (
        ("openai",),
        """
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
    "huggingface_hub": (
        ("huggingface_hub",),
        """
client = InferenceClient(URL, headers={"authorization": None})
messages = [{"role": "user", "content": QUESTION}]
one = InferenceClient(URL + "/models/" + MODEL, headers={"authorization": None})
whole = one.chat_completion(messages, max_tokens=20, temperature=0).choices[0].message.content
parts = one.chat_completion(messages, max_tokens=20, temperature=0, stream=True)
assert "".join(part.choices[0].delta.content or "" for part in parts) == whole
assert client.text_generation(QUESTION, adapter_id=MODEL, max_new_tokens=3)
""",
    ),
    "litellm": (
        ("litellm",),
        """
told = litellm.completion(
    model="openai/" + MODEL, api_base=URL + "/v1", api_key="-", max_tokens=20,
    messages=[{"role": "user", "content": QUESTION}],
)
assert told.choices[0].message.content
""",
    ),
    "langchain-openai": (
        ("langchain-openai",),
        """
chat = ChatOpenAI(base_url=URL + "/v1", api_key="-", model=MODEL, max_tokens=20)
assert chat.invoke(QUESTION).content
assert "".join(part.content for part in chat.stream(QUESTION))
""",
    ),
    "lm-eval": (
        ("lm-eval[api]",),
        """
model = LocalCompletionsAPI(
    base_url=URL + "/v1/completions", model=MODEL, tokenizer=TOKENIZER, batch_size=2
)
asked = [("The capital of France is", " Paris"), ("Iron is", " a metal"), ("Two and two", " is")]
requests = [Instance("loglikelihood", {}, pair, 0) for pair in asked]
found = model.loglikelihood(requests)
assert len(found) == 3 and all(value < 0 for value, _ in found), found
""",
    ),
}
IMPORTS = {
    "openai": "from openai import OpenAI",
    "huggingface_hub": "from huggingface_hub import InferenceClient",
    "litellm": "import litellm",
    "langchain-openai": "from langchain_openai import ChatOpenAI",
    "lm-eval": "from lm_eval.api.instance import Instance\n"
    "from lm_eval.models.openai_completions import LocalCompletionsAPI",
}


def program(name: str) -> str:
    """The check of a client as a program, which takes URL, model and tokenizer folder."""
    head = f"import sys\nURL, MODEL, TOKENIZER = sys.argv[1:]\nQUESTION = {QUESTION!r}\n"
    return f"{head}{IMPORTS[name]}\n{CHECKS[name][1]}"


def check(python: Path, name: str, url: str, model: str, tokenizer: Path) -> str:
    """'' where the client works, else the last line of what it said."""
    done = subprocess.run(
        [str(python), "-c", program(name), url, model, str(tokenizer)],
        capture_output=True, text=True, timeout=300, check=False, env=_environment(),
    )  # fmt: skip
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1]


def install(name: str) -> Path:
    """The Python of a client's own environment, made if it is not there."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    if not (folder / "done").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-qq", *CHECKS[name][0]], check=True)
        (folder / "done").touch()
    return python


def version(python: Path, name: str) -> str:
    """The version of the client that is installed."""
    text = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run([str(python), "-c", text], capture_output=True, text=True).stdout.strip()


@contextmanager
def served() -> Iterator[str]:
    """The address of `arena serve` with the shipped models."""
    command = [sys.executable, "-m", "arena.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield next(line.split()[-1] for line in process.stdout if line.startswith("Serving at"))
        finally:
            process.terminate()


def main(names: list[str]) -> None:
    """Try the clients that are named, or all, and write the table."""
    from tuning.starter import shipped_models

    rows, tokenizer = [], shipped_models()["starter"]
    with served() as url:
        for name in names or list(CHECKS):
            python = install(name)
            said = check(python, name, url, MODEL, tokenizer)
            print(name, said or "passed", flush=True)
            rows.append(f"| {name} | {version(python, name)} | {said or 'passed'} |")
    head = "# Clients\n\nWhat `make clients` found when it last ran.\n\n"
    table = "\n".join(["| client | version | result |", "|---|---|---|", *rows])
    PAGE.write_text(f"{head}{table}\n", encoding="utf-8")


def _environment() -> dict[str, str]:
    """Without proxies and Python paths of this process; the hub is not asked."""
    dropped = {"PYTHONPATH", "VIRTUAL_ENV"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


if __name__ == "__main__":
    main(sys.argv[1:])
