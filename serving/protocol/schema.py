"""The shapes on the wire, in the words of TGI and OpenAI; knows nothing of what they cause.

A key that is null counts as absent; unknown keys are kept for who wants to refuse them. Checks of
values with TGI's messages are in `serving.completion.checks`; here only types are checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    model_validator,
)


def _list_for_text(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


StopList = Annotated[list[str], BeforeValidator(_list_for_text)]


class Wire(BaseModel):
    """A request body, or a part of one."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if item is not None}


class Grammar(Wire):
    """What the answer must match: a JSON schema or a regular expression."""

    type: Literal["json", "json_object", "json_schema", "regex", "text"]
    value: Any = None
    json_schema: dict[str, Any] | None = None


class GenerateParameters(Wire):
    """Parameters of the generate routes; None is TGI's null."""

    best_of: int | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: int | None = None
    return_full_text: bool | None = None
    stop: StopList = Field(default_factory=list)
    truncate: int | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: int | None = None
    top_n_tokens: int | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None


class GenerateRequest(Wire):
    """Body of /generate and /generate_stream; without `parameters` an answer is sampled."""

    inputs: str
    parameters: GenerateParameters = Field(
        default_factory=lambda: GenerateParameters(do_sample=True)
    )
    stream: bool = False

    @classmethod
    def read(cls, body: Any) -> GenerateRequest:
        """Parse a body; `parameters: null` means `{}`."""
        if isinstance(body, dict) and "parameters" in body and body["parameters"] is None:
            body = {**body, "parameters": {}}
        return cls.model_validate(body)


class ContentPart(Wire):
    """A piece of a message's content."""

    type: str
    text: str | None = None
    image_url: Any = None


class Message(Wire):
    """One chat message; content may be absent beside tool calls."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(Wire):
    """Whether a last chunk carries the token counts, or every chunk those so far."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class OpenAIRequest(Wire):
    """What chat and completion requests share; keys nobody knows are kept, to be refused by name.

    OpenAI's longer name of `max_tokens` wins. Some keys are vLLM's, which many clients send.
    """

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str | None = None
    adapter_id: str | None = None
    max_tokens: int | None = Field(
        default=None, validation_alias=AliasChoices("max_completion_tokens", "max_tokens")
    )
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: StopList = Field(default_factory=list)
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    ignore_eos: bool = False
    min_tokens: int | None = None
    logit_bias: dict[str, float] | list[Any] | None = None
    n: int | None = None
    stream: bool = False
    stream_options: StreamOptions = Field(default_factory=StreamOptions)


class ChatRequest(OpenAIRequest):
    """Body of /v1/chat/completions."""

    messages: list[Message]
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    tool_prompt: str | None = None
    response_format: Grammar | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    guideline: str | None = None
    best_of: int | None = None
    reward: str | None = None


class CompletionRequest(OpenAIRequest):
    """Body of /v1/completions. A prompt is a text, or the ids of its tokens."""

    prompt: str | list[StrictInt] | list[str | list[StrictInt]]
    suffix: str | None = None
    echo: bool = False
    logprobs: int | None = None
    best_of: int | None = None
    add_special_tokens: bool = True

    @property
    def prompts(self) -> list[str | list[int]]:
        """One prompt or several, as a list."""
        given: Any = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            return [given]
        return list(given)


def _messages_for_text(role: str) -> Any:
    """A validator that makes one message of `role` of a text."""

    def read(value: Any) -> Any:
        return [{"role": role, "content": value}] if isinstance(value, str) else value

    return BeforeValidator(read)


PromptMessages = Annotated[list[Message], _messages_for_text("user")]
CompletionMessages = Annotated[list[Message], _messages_for_text("assistant")]
TextList = Annotated[list[str], BeforeValidator(_list_for_text)]


class AnswerRow(Wire):
    """A prompt and an answer to it, each a text or messages."""

    prompt: PromptMessages
    completion: CompletionMessages


class ScoreRequest(Wire):
    """Body of /score: vLLM's two texts (or lists of them), or rows of prompt and completion.

    One text before several is the prompt of them all. A row that cannot be read fails the request,
    or with `skip_unreadable` has a null score and an `error`.
    """

    model: str | None = None
    adapter_id: str | None = None
    skip_unreadable: bool | None = None
    text_1: TextList | None = Field(
        default=None, validation_alias=AliasChoices("text_1", "queries", "data_1")
    )
    text_2: TextList | None = Field(
        default=None, validation_alias=AliasChoices("text_2", "documents", "items", "data_2")
    )
    prompt: PromptMessages | None = None
    completion: CompletionMessages | None = None
    rows: list[AnswerRow] | None = None


class PoolingRequest(Wire):
    """Body of /pooling and /classify: a conversation that ends on its answer, or whole texts."""

    model: str | None = None
    adapter_id: str | None = None
    messages: list[Message] | None = None
    input: TextList | None = None


class RerankRequest(Wire):
    """Body of /rerank: TEI's `texts`, or `documents` as Jina, Cohere and vLLM call them."""

    model: str | None = None
    adapter_id: str | None = None
    query: str
    texts: list[str] | None = None
    documents: list[str] | None = None
    top_n: int | None = None
    raw_scores: bool = False
    return_text: bool = False
    return_documents: bool = False


class PredictRequest(Wire):
    """Body of TEI's /predict: a text, a pair of prompt and answer as [[…, …]], or several."""

    inputs: str | list[str] | list[list[str]]
    raw_scores: bool = False
    adapter_id: str | None = None


class LoadRequest(Wire):
    """Body of /v1/load_lora_adapter."""

    lora_name: str = ""
    lora_path: str = ""
    load_inplace: bool = False


class UnloadRequest(Wire):
    """Body of /v1/unload_lora_adapter."""

    lora_name: str = ""
