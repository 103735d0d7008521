"""Grammars that answers must match: JSON schemas and regular expressions, through llguidance.

Turns a grammar into a mask over a row of scores. Knows tokenizers; does not know requests.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch

from serving.completion.json_schema import closed
from serving.protocol.problems import invalid
from serving.protocol.schema import Grammar

ANY_OBJECT = {"type": "object"}


class GrammarMask:
    """The state of one grammar over one completion: which tokens may come next."""

    def __init__(self, matcher: llguidance.LLMatcher, eos_ids: frozenset[int]) -> None:
        self._matcher = matcher
        self._eos = sorted(eos_ids)

    def mask(self, scores: torch.Tensor) -> None:
        """Set the scores of tokens that would break the grammar to -inf, in place."""
        size = scores.shape[-1]
        if self._matcher.is_stopped():
            allowed = torch.zeros(size, dtype=torch.bool)
        else:
            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            flags = np.unpackbits(bits, bitorder="little")[:size].astype(bool)
            allowed = torch.zeros(size, dtype=torch.bool)
            allowed[: len(flags)] = torch.from_numpy(flags)
        if self._matcher.is_stopped() or self._matcher.is_accepting():
            allowed[self._eos] = True
        scores.masked_fill_(~allowed.to(scores.device), float("-inf"))

    def accept(self, token: int) -> None:
        """Tell the grammar which token was chosen."""
        if token not in self._eos and not self._matcher.is_stopped():
            self._matcher.consume_token(token)


class GrammarCompiler:
    """Compiles grammars for the tokenizers of one server; token tables are made once each.

    A table takes its time, and Python's lock: variants whose tokens are the same share one.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], tuple[Any, llguidance.LLTokenizer]] = {}
        self._lock = threading.Lock()

    def compile(
        self, grammar: str, tokenizer: Any, vocab_size: int, eos_ids: frozenset[int]
    ) -> GrammarMask:
        """A fresh mask for one completion; Problem 422 when the grammar is not valid."""
        try:
            table = self._table(tokenizer, vocab_size)
        except (ValueError, TypeError) as error:
            raise invalid("grammar is not supported") from error
        matcher = llguidance.LLMatcher(table, grammar, log_level=0)
        if matcher.is_error():
            line = " ".join(matcher.get_error().split())[:300]
            raise invalid(f"grammar is not valid: {line}")
        return GrammarMask(matcher, eos_ids)

    def _table(self, tokenizer: Any, vocab_size: int) -> llguidance.LLTokenizer:
        tokens = getattr(tokenizer, "backend_tokenizer", tokenizer)
        with self._lock:
            known = self._tables.get((id(tokens), vocab_size))
            if known is None:
                table = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size)
                known = self._tables[id(tokens), vocab_size] = (tokens, table)
            return known[1]


def translate(grammar: Grammar) -> str:
    """llguidance's text of a grammar on the wire; Problem 422 names what is wrong with it."""
    if grammar.type == "regex":
        if not isinstance(grammar.value, str):
            raise invalid("grammar is not valid: a regex is a string")
        return llguidance.LLMatcher.grammar_from_regex(grammar.value)
    if grammar.type == "json_schema":
        holder = grammar.json_schema or grammar.value
        schema = holder.get("schema") if isinstance(holder, Mapping) else None
        if schema is None:
            raise invalid("grammar is not valid: json_schema needs a 'schema' field")
        return from_schema(schema)
    if grammar.value is None:
        if grammar.type == "json_object":
            return from_schema(ANY_OBJECT)
        raise invalid("grammar is not valid: a JSON grammar needs a 'value'")
    schema = grammar.value
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise invalid(f"grammar is not valid: {error}") from error
    if not isinstance(schema, Mapping) or "properties" not in schema:
        raise invalid("grammar is not valid: Grammar must have a 'properties' field")
    return from_schema(schema)


def from_schema(schema: Any) -> str:
    """llguidance's text of a JSON schema; compact JSON, so that no row wanders off in blanks."""
    try:
        if isinstance(schema, str):
            schema = json.loads(schema)
        return llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(closed(schema)), defaults={"whitespace_flexible": False}
        )
    except (ValueError, RecursionError) as error:
        raise invalid(f"grammar is not valid: {error}") from error
