"""Puts a deployment's files through the parser or schema of the engine that is to read them.

Each program runs in that engine's own environment, with the deployment's folder as its argument:
it fails, or prints what it understood. Knows the engines' Python; starts none of them.
"""

from __future__ import annotations

# The words of each `vllm serve` or SGLang line of the script, as a shell would give them.
SCRIPT_WORDS = r"""
import json, re, shlex, sys
from pathlib import Path
FOLDER = Path(sys.argv[1])
def calls(program):
    for line in (FOLDER / "serve.sh").read_text().splitlines():
        line = re.sub(r'"\$\(\(PORT \+ (\d+)\)\)"', lambda found: str(8000 + int(found[1])), line)
        line = line.removeprefix("exec ").removesuffix(" &").replace('"$@"', "")
        words = shlex.split(line.replace('"$HOST"', "127.0.0.1").replace('"$PORT"', "8000"))
        if words[: len(program)] == program:
            yield words[len(program) :]
"""
VLLM = (
    SCRIPT_WORDS
    + """
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
for words in calls(["vllm", "serve"]):
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    validate_parsed_serve_args(args)
    assert (FOLDER / args.model_tag / "config.json").is_file(), args.model_tag
    for one in args.lora_modules or []:
        assert (FOLDER / one.path / "adapter_config.json").is_file(), one.path
    print(args.served_model_name, [one.name for one in args.lora_modules or []], args.port)
"""
)
SGLANG = (
    SCRIPT_WORDS
    + """
import argparse
from sglang.srt.server_args import ServerArgs
for words in calls(["python3", "-m", "sglang.launch_server"]):
    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    args = parser.parse_args(words)
    assert (FOLDER / args.model_path / "config.json").is_file(), args.model_path
    print(args.served_model_name, args.lora_paths, args.port)
"""
)
RAY = """
import sys, yaml
from pathlib import Path
from ray.serve.schema import ServeDeploySchema
from ray.llm._internal.serve.core.ingress.builder import LLMServingArgs
content = yaml.safe_load((Path(sys.argv[1]) / "serve_config.yaml").read_text())
for application in ServeDeploySchema.model_validate(content).applications:
    for config in LLMServingArgs.model_validate(application.args).llm_configs:
        print(config.model_id, config.lora_config)
"""
KSERVE = """
import json, sys, yaml
from pathlib import Path
from kserve.models import V1alpha2LLMInferenceService as Service
for content in yaml.safe_load_all((Path(sys.argv[1]) / "kserve.yaml").read_text()):
    known = set(Service.attribute_map.values())
    assert set(content) <= known, set(content) - known
    service = Service(api_version=content["apiVersion"], kind=content["kind"],
                      metadata=content["metadata"], spec=content["spec"])
    print(service.kind, service.metadata["name"], service.spec["model"]["name"])
"""
PARSERS = {"vllm": VLLM, "sglang": SGLANG, "ray": RAY, "kserve": KSERVE}
