"""What `make clients` asks of a client, with those of the test environment."""

from __future__ import annotations

import sys
from pathlib import Path

import clients
import pytest
from serving_fixtures import tiny_config

from serving.http.server import ServerThread


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai", "huggingface_hub", "text-generation", "curl"])
def test_clients_of_the_test_environment_work(
    tiny_server: ServerThread, tiny_home: Path, name: str
) -> None:
    assert clients.check(Path(sys.executable), name, tiny_server.url, "lora", tiny_home) == ""


def test_a_client_that_fails_is_told(tiny_home: Path) -> None:
    assert tiny_config(tiny_home).port == 0
    said = clients.check(Path(sys.executable), "openai", "http://127.0.0.1:9", "lora", tiny_home)
    assert "Connection" in said
