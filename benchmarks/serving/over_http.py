"""Base and tuned models over HTTP: this server beside others, the same requests.

    python benchmarks/serving/over_http.py --shape starter --out http.json

Workloads: W0 one user asks the LoRA; W1 one user asks base and LoRA; W2 base, LoRA, prefix and a
full checkpoint; W3 eight users ask two models each; W4 fifteen adapters and the base; W5 a shared
beginning of 512 tokens; W6 half the callers leave after five tokens; W7 an adapter is loaded while
streams run; WJ a prompt of 512 tokens joins while streams run.

`transformers serve` has no adapters, so it gets what it does best with: one process for each merged
copy, with and without continuous batching. It takes part in W0, W1 and W3, and so do
llama-cpp-python's server and vLLM, compiled and with its threads bound, if `--llama-cpp` and
`--vllm` name the Python and the program of their environments. All servers are up, idle ones do
nothing; they take turns, run by run. Besides wall time there is the servers' own CPU time, which
other work on the machine shifts less.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import peft
import psutil
import shapes
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

PROMPT = "abcdefghijklmnopqrst"
NUM_MANY = 16
NUM_LOADS = 3
LONGEST = 900
NUM_VIRTUAL = 20


@dataclass(frozen=True)
class Target:
    """A model of a server."""

    url: str
    model: str


@dataclass
class System:
    """What is compared: its processes, and where each variant is asked."""

    name: str
    targets: dict[str, Target]
    processes: list[subprocess.Popen[bytes]]

    def cpu_seconds(self) -> float:
        """CPU time of all processes so far, and of those that they started."""
        times = [one.cpu_times() for one in self._everyone()]
        return float(sum(spent.user + spent.system for spent in times))

    def rss_mb(self) -> float:
        """Resident memory of all processes."""
        return float(sum(one.memory_info().rss for one in self._everyone())) / 2**20

    def _everyone(self) -> list[psutil.Process]:
        parents = [psutil.Process(process.pid) for process in self.processes]
        return parents + [child for one in parents for child in one.children(recursive=True)]


@dataclass
class Trace:
    """When a request was sent and when its pieces came."""

    start: float
    times: list[float] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Seconds to the first piece."""
        return self.times[0] - self.start

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


async def ask(
    api: httpx.AsyncClient,
    target: Target,
    prompt: str,
    count: int,
    leave_after: int = 0,
    trace: Trace | None = None,
) -> Trace:
    """Stream one chat answer of `count` tokens; close the connection early if told so."""
    body = {
        "model": target.model, "messages": [{"role": "user", "content": prompt}],
        "max_tokens": count, "temperature": 0, "stream": True,
    }  # fmt: skip
    trace = trace or Trace(0.0)
    trace.start = time.perf_counter()
    async with api.stream("POST", f"{target.url}/v1/chat/completions", json=body) as reply:
        if reply.status_code != 200:
            raise RuntimeError(f"{reply.status_code}: {(await reply.aread())[:300]!r}")
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            choices = json.loads(line[6:]).get("choices")
            if choices and choices[0]["delta"].get("content"):
                trace.times.append(time.perf_counter())
                if len(trace.times) == leave_after:
                    return trace
    return trace


Work = Callable[[httpx.AsyncClient, System], Coroutine[Any, Any, list[Trace]]]


def run(system: System, work: Work) -> dict[str, Any]:
    """One run of a workload: traces, wall and CPU seconds."""

    async def inside() -> dict[str, Any]:
        # A client reads certificates for a while when it is made, and a page that asks models
        # keeps its connections: neither is part of an answer.
        async with httpx.AsyncClient(timeout=600) as api:
            urls = {target.url for target in system.targets.values()}
            knocks = [api.get(f"{url}/health") for url in urls for _ in range(NUM_MANY)]
            await asyncio.gather(*knocks)
            cpu, start = system.cpu_seconds(), time.perf_counter()
            traces = await work(api, system)
            wall = time.perf_counter() - start
            return {"wall": wall, "cpu": system.cpu_seconds() - cpu, "traces": traces}

    return asyncio.run(inside())


def together(names: Sequence[str], count: int, users: int = 1) -> Work:
    """`users` people ask each of the models at once, each something of their own."""

    async def work(api: httpx.AsyncClient, system: System) -> list[Trace]:
        return list(
            await asyncio.gather(
                *(
                    ask(api, system.targets[name], chr(65 + user) + PROMPT, count)
                    for user in range(users)
                    for name in names
                )
            )
        )

    return work


def one_after_the_other(names: Sequence[str], count: int) -> Work:
    """One model after the other."""

    async def work(api: httpx.AsyncClient, system: System) -> list[Trace]:
        return [await ask(api, system.targets[name], "A" + PROMPT, count) for name in names]

    return work


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Medians over runs; percentiles over all pieces of all runs."""
    traces = [trace for each in runs for trace in each["traces"]]
    pieces = sum(len(trace.times) for trace in traces) / len(runs)
    firsts, gaps = [t.first for t in traces], [g for t in traces for g in t.gaps]
    return {
        "tokens_per_s": pieces / statistics.median(each["wall"] for each in runs),
        "best_tokens_per_s": pieces / min(each["wall"] for each in runs),
        "tokens_per_cpu_s": pieces / max(statistics.median(e["cpu"] for e in runs), 1e-9),
        "wall_s": statistics.median(each["wall"] for each in runs),
        "cpu_s": statistics.median(each["cpu"] for each in runs),
        "first_ms_p50": 1000 * percentile(firsts, 50),
        "first_ms_p95": 1000 * percentile(firsts, 95),
        "gap_ms_p50": 1000 * percentile(gaps, 50),
        "gap_ms_p99": 1000 * percentile(gaps, 99),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of 100 do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


# --- servers ------------------------------------------------------------------------------


def make_models(folder: Path, options: argparse.Namespace) -> None:
    """Base, LoRAs, a prefix, a full checkpoint and a merged copy."""
    dtype = getattr(torch, options.dtype)
    base = shapes.save_base(options.shape, dtype, folder / "base")
    for number in range(NUM_MANY):
        shapes.save_lora(base, folder / f"lora{number}", number)
    # The one that comes late is a whole variant, with a tokenizer and a template of its own.
    shapes.save_tokenizer(options.shape, folder / f"lora{NUM_MANY - 1}")
    shapes.save_merged(base, folder / "lora0", folder / "merged")
    shutil.copytree(base, folder / "full")
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = peft.get_peft_model(
        model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=NUM_VIRTUAL)
    )
    tuned.save_pretrained(folder / "prefix")


@contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, ended at the end."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def wait_ready(system: System, folder: Path) -> None:
    """Wait until every process of a system answers; they started side by side.

    llama-cpp-python has no /health; transformers serve fails to list models without a hub cache.
    """
    urls = {target.url for target in system.targets.values()}
    while urls:
        for process in system.processes:
            if process.poll() is not None:
                logs = "".join(p.read_text(errors="replace")[-800:] for p in folder.glob("*.log"))
                raise SystemExit(f"{system.name} ended: {logs}")
        for url in list(urls):
            try:
                paths = ("health", "v1/models")
                if any(httpx.get(f"{url}/{p}", timeout=20).status_code == 200 for p in paths):
                    urls.remove(url)
            except httpx.HTTPError:
                time.sleep(0.5)


def wait_compiled(system: System, seconds: float = 90.0) -> None:
    """Let this server compile its steps, which it does beside its first answers."""

    async def work(api: httpx.AsyncClient, system: System) -> list[Trace]:
        return [await ask(api, system.targets[name], PROMPT, 2) for name in ("base", "full")]

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run(system, work)
        if counter(system, "arena_engine_compiled_steps_count") > 1:
            return
        time.sleep(0.5)
    print("this server: torch runs all steps", file=sys.stderr)


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def this_server(folder: Path, options: argparse.Namespace) -> Iterator[System]:
    """One process for everything."""
    port = free_port()
    names = [*(f"lora{i}" for i in range(NUM_MANY - 1)), "prefix", "full"]
    command = [
        sys.executable, "-m", "arena.cli", "serve", "--base", str(folder / "base"),
        "--home", str(folder / "home"), "--port", str(port), "--dtype", options.dtype,
        "--device", options.device, "--openai",
    ]  # fmt: skip
    for name in names:
        command += ["--model", str(folder / name)]
    url = f"http://127.0.0.1:{port}"
    with started(command, folder / "ours.log") as process:
        targets = {name: Target(url, name) for name in ("base", *names)}
        yield System("this server", targets, [process])


@contextmanager
def transformers_serve(
    folder: Path, options: argparse.Namespace, batching: bool
) -> Iterator[System]:
    """A process for the base and one for the merged copy."""
    with ExitStack() as stack:
        targets, processes = {}, []
        for variant, copy in (("base", "base"), ("lora0", "merged")):
            port = free_port()
            command = [
                shutil.which("transformers") or "transformers", "serve", str(folder / copy),
                "--port", str(port), "--device", options.device, "--dtype", options.dtype,
            ]  # fmt: skip
            if batching:
                command += ["--continuous-batching", "--cb-num-blocks", "64"]
            url = f"http://127.0.0.1:{port}"
            log = folder / f"transformers-{copy}-{batching}.log"
            process = stack.enter_context(started(command, log))
            targets[variant] = Target(url, str(folder / copy))
            processes.append(process)
        mode = "continuous batching" if batching else "one by one"
        yield System(f"transformers serve, {mode}", targets, processes)


@contextmanager
def llama_cpp(folder: Path, options: argparse.Namespace) -> Iterator[System]:
    """llama-cpp-python's server: a process for the base and one for the merged copy."""
    with ExitStack() as stack:
        targets, processes = {}, []
        for variant, copy in (("base", "base"), ("lora0", "merged")):
            file = folder / f"{copy}.gguf"
            writer = Path(__file__).with_name("write_gguf.py")
            subprocess.run([options.llama_cpp, writer, folder / copy, file], check=True)
            port = free_port()
            command = [
                str(options.llama_cpp), "-m", "llama_cpp.server", "--model", str(file),
                "--port", str(port), "--n_ctx", "1024", "--n_threads", str(options.threads),
                "--interrupt_requests", "False", "--model_alias", copy,
            ]  # fmt: skip
            url, log = f"http://127.0.0.1:{port}", folder / f"llama-{copy}.log"
            process = stack.enter_context(started(command, log))
            targets[variant] = Target(url, copy)
            processes.append(process)
        yield System("llama-cpp-python", targets, processes)


@contextmanager
def vllm(folder: Path, options: argparse.Namespace) -> Iterator[System]:
    """`vllm serve` with the base and a LoRA: it compiles, and binds its threads to cores."""
    port = free_port()
    template = folder / "template.jinja"
    template.write_text(shapes.TEMPLATE)
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{options.threads - 1}"
    command = [
        str(options.vllm), "serve", str(folder / "base"), "--served-model-name", "base",
        "--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"lora0={folder / 'lora0'}",
        "--max-model-len", "1024", "--dtype", options.dtype, "--port", str(port),
        "--chat-template", str(template), "--disable-uvicorn-access-log",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with started(command, folder / "vllm.log") as process:
        yield System("vLLM", {name: Target(url, name) for name in ("base", "lora0")}, [process])


# --- workloads that only this server can run ----------------------------------------------


def own_workloads(system: System, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """W2 and W4 to W7, and a long prompt that joins."""
    count = options.tokens
    found: dict[str, Any] = {}

    def repeat(name: str, work: Work) -> None:
        found[name] = summary([run(system, work) for _ in range(options.repeats)])

    repeat(
        "W2 base, LoRA, prefix, full at once", together(["base", "lora0", "prefix", "full"], count)
    )
    repeat(
        "W4 15 adapters and the base", together(["base", *(f"lora{i}" for i in range(15))], count)
    )
    found["W5 shared beginning of 512 tokens"] = shared_beginning(system, options)
    found["W6 half leave after 5 tokens"] = leaving(system, options)
    found["W7 an adapter is loaded meanwhile"] = meanwhile(system, options, loading(folder))
    found["WJ a prompt of 512 tokens joins"] = meanwhile(system, options, joining)
    return found


def shared_beginning(system: System, options: argparse.Namespace) -> dict[str, float]:
    """Time to the first token of the first prompt and of later ones with the same beginning."""

    def work(text: str) -> Work:
        async def ask_once(api: httpx.AsyncClient, system: System) -> list[Trace]:
            return [await ask(api, system.targets["lora0"], text, 8)]

        return ask_once

    firsts, laters = [], []
    for number in range(options.repeats):
        shared = chr(97 + number) * 512
        firsts.append(run(system, work(shared + "x"))["traces"][0].first)
        laters += [run(system, work(shared + tail))["traces"][0].first for tail in "yz"]
    first, later = statistics.median(firsts), statistics.median(laters)
    return {"first_ms": 1000 * first, "later_ms": 1000 * later, "ratio": later / first}


def counter(system: System, name: str) -> float:
    """A series of /metrics, added up over its labels."""
    text = httpx.get(f"{system.targets['base'].url}/metrics", timeout=60).text
    return sum(float(x.rsplit(" ", 1)[1]) for x in text.splitlines() if x.startswith(name + "{"))


def leaving(system: System, options: argparse.Namespace) -> dict[str, float]:
    """Tokens that were made and reached nobody, over tokens that reached somebody."""

    async def work(api: httpx.AsyncClient, system: System) -> list[Trace]:
        targets = [system.targets[name] for name in ("base", "lora0")] * 4
        return list(
            await asyncio.gather(
                *(
                    ask(api, target, chr(65 + i) + PROMPT, options.tokens, 5 if i % 2 else 0)
                    for i, target in enumerate(targets)
                )
            )
        )

    before = counter(system, "arena_engine_decode_tokens_count")
    runs = [run(system, work) for _ in range(options.repeats)]
    time.sleep(0.5)
    made = counter(system, "arena_engine_decode_tokens_count") - before
    read = sum(len(trace.times) for each in runs for trace in each["traces"])
    return {"made": made, "read": read, "wasted_share": (made - read) / made}


Disturbance = Callable[[httpx.AsyncClient, System], Coroutine[Any, Any, None]]


def meanwhile(
    system: System, options: argparse.Namespace, disturb: Disturbance
) -> dict[str, float]:
    """Gaps of four streams while something happens, beside the same streams' when nothing does."""
    spans: list[float] = []

    def work(disturbance: Disturbance) -> Work:
        async def streams(api: httpx.AsyncClient, system: System) -> list[Trace]:
            traces = [Trace(0.0) for _ in range(4)]
            tasks = [
                asyncio.create_task(
                    ask(api, system.targets[name], chr(65 + i) + PROMPT, LONGEST, trace=traces[i])
                )
                for i, name in enumerate(("base", "lora0") * 2)
            ]
            while any(len(trace.times) < 3 for trace in traces):
                await asyncio.sleep(0.002)
            begin = time.perf_counter()
            await disturbance(api, system)
            spans.append(time.perf_counter() - begin)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return [Trace(begin, [t for t in trace.times if t >= begin]) for trace in traces]

        return streams

    async def nothing(api: httpx.AsyncClient, system: System) -> None:
        await asyncio.sleep(spans[-1])

    run(system, work(disturb))  # To warm up.
    gaps: dict[str, list[float]] = {"quiet": [], "during": []}
    lasted = []
    for _ in range(options.repeats):
        for key, disturbance in (("during", disturb), ("quiet", nothing)):
            gaps[key] += [g for t in run(system, work(disturbance))["traces"] for g in t.gaps]
        lasted.append(spans[-2])
    found = {"lasted_ms": 1000 * statistics.median(lasted), "gaps": len(gaps["during"])}
    for key, values in gaps.items():
        found |= {f"gap_ms_p{p}_{key}": 1000 * percentile(values, p) for p in (50, 99)}
        found[f"gap_ms_max_{key}"] = 1000 * max(values)
    more = found["gap_ms_p99_during"] - found["gap_ms_p99_quiet"]
    return {**found, "p99_more_in_steps": more / found["gap_ms_p50_quiet"]}


def loading(folder: Path) -> Disturbance:
    """Load and unload an adapter, some times over."""
    body = {"lora_name": "late", "lora_path": str(folder / f"lora{NUM_MANY - 1}")}

    async def disturb(api: httpx.AsyncClient, system: System) -> None:
        url = system.targets["base"].url
        for _ in range(NUM_LOADS):
            for verb in ("load", "unload"):
                reply = await api.post(f"{url}/v1/{verb}_lora_adapter", json=body)
                reply.raise_for_status()

    return disturb


async def joining(api: httpx.AsyncClient, system: System) -> None:
    """A long prompt, each time another, so that no cache knows it."""
    letters = f"{time.perf_counter_ns():x}" * 40
    await ask(api, system.targets["lora1"], letters[:512], 1)


# --- the whole ----------------------------------------------------------------------------


def compare(systems: Sequence[System], options: argparse.Namespace) -> dict[str, Any]:
    """W0, W1 and W3 on all systems in turns."""
    pair = ["base", "lora0"]
    works = {
        "W0 one user, LoRA": together(["lora0"], options.tokens),
        "W1 one user, base + LoRA": together(pair, options.tokens),
        "W1 one after the other": one_after_the_other(pair, options.tokens),
        "W3 8 users x 2": together(pair, options.tokens, users=8),
    }
    found: dict[str, Any] = {}
    for name, work in works.items():
        asked = systems if "after" not in name else systems[:1]
        runs: dict[str, list[dict[str, Any]]] = {system.name: [] for system in asked}
        for system in asked:
            run(system, work)  # To warm up.
        for _ in range(options.repeats):
            for system in asked:
                runs[system.name].append(run(system, work))
        found[name] = {system: summary(kept) for system, kept in runs.items()}
        print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)  # Should it end early.
    return found


def show(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the tables, ratios first, and write JSON when asked."""
    print("  ".join(f"{key}={value}" for key, value in result["about"].items()))
    print(f"{'ratio':>6} {'cpu':>6} {'tok/s':>8} {'tok/cpu s':>9} {'first p95':>9} {'gap p99':>8}")
    for name, rows in result["compared"].items():
        print(name)
        ours = rows["this server"]
        for system, row in rows.items():
            print(
                f"{ours['tokens_per_s'] / row['tokens_per_s']:6.2f} "
                f"{ours['tokens_per_cpu_s'] / row['tokens_per_cpu_s']:6.2f} "
                f"{row['tokens_per_s']:8.1f} {row['tokens_per_cpu_s']:9.1f} "
                f"{row['first_ms_p95']:9.1f} {row['gap_ms_p99']:8.1f}  {system}"
            )
    for name, row in result["own"].items():
        print(name, " ".join(f"{key}={value:.4g}" for key, value in row.items()))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def main() -> None:
    """Read the options, start the servers, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="starter")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each server")
    parser.add_argument("--alone", action="store_true", help="leave the peers out")
    parser.add_argument(
        "--llama-cpp", help="Python of an environment with llama-cpp-python[server]"
    )
    parser.add_argument("--vllm", help="vLLM's program, in an environment of its own")
    parser.add_argument("--peers-only", action="store_true", help="leave W2 and W4 to W7 out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    transformers_logging.disable_progress_bar()
    gc.freeze()  # Else the client's collector now and then walks over all of torch.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    about: dict[str, Any] = {
        "shape": options.shape, "dtype": options.dtype, "device": options.device,
        "tokens": options.tokens, "threads": options.threads, "cpus": os.cpu_count(),
        "torch": torch.__version__, "load_average": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        make_models(folder, options)
        systems = [stack.enter_context(this_server(folder, options))]
        if not options.alone:
            for batching in (True, False):
                systems.append(stack.enter_context(transformers_serve(folder, options, batching)))
        if options.llama_cpp:
            systems.append(stack.enter_context(llama_cpp(folder, options)))
        if options.vllm:
            systems.append(stack.enter_context(vllm(folder, options)))
        for system in systems:
            wait_ready(system, folder)
        if options.device == "cpu":
            wait_compiled(systems[0])
        print(f"up: {', '.join(system.name for system in systems)}", flush=True)
        compared = compare(systems, options)
        about |= {f"{system.name}, MB": round(system.rss_mb()) for system in systems}
        own = {} if options.peers_only else own_workloads(systems[0], folder, options)
    show({"about": about, "compared": compared, "own": own}, options)


if __name__ == "__main__":
    main()
