"""What every check has: typed fields, none of them unknown, and a verdict on an answer.

A check is plain data (`{"kind": ..., ...}`), so that a suite of prompts with their checks is a
JSON Lines file anyone can write. Knows none of the kinds.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from tuning.errors import TuningError
from tuning.evaluation.texts import words_of
from tuning.value_types import Text, Whole, problem_of, shown

RELATIONS: Mapping[str, Callable[[int, int], bool]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "exactly": operator.eq,
}


class CheckError(TuningError):
    """A check of an unknown kind, or with a field that is unknown, missing or wrong; names it."""


def _worded(text: str) -> str:
    if not words_of(text):
        raise PydanticCustomError("worded", "holds no word; give one")
    return text


def _single(text: str) -> str:
    if words_of(text) != [text.strip()]:
        raise PydanticCustomError("single", "is no single word; give one word")
    return text.strip()


def _letter(text: str) -> str:
    if len(text.lower()) != 1:
        raise PydanticCustomError("letter", "is no single letter; give one")
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("filled", "is empty; give a text")
    return text


MOST = 1_000_000  # of words, lines and all else that is counted: no answer is as long
FromZero = Annotated[Whole, Field(ge=0, le=MOST)]
Positive = Annotated[Whole, Field(ge=1, le=MOST)]
Filled = Annotated[Text, AfterValidator(_filled)]
Phrase = Annotated[Text, AfterValidator(_worded)]
Word = Annotated[Text, AfterValidator(_single)]
Letter = Annotated[Text, AfterValidator(_letter)]
Phrases = Annotated[tuple[Phrase, ...], Field(min_length=1)]
WordList = Annotated[tuple[Word, ...], Field(min_length=1)]
Texts = Annotated[tuple[Filled, ...], Field(min_length=1)]


class Check(BaseModel):
    """One check. Its docstring is what the documentation says of its kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    kind: str

    def passes(self, answer: str) -> bool:
        """Whether `answer` does what was asked."""
        raise NotImplementedError


class Counted(Check):
    """A number that an answer holds, compared with `count`; `relation` is "at least" by default."""

    count: FromZero
    relation: Literal["at least", "at most", "exactly"] = "at least"

    def compare(self, found: int) -> bool:
        """Whether `found` stands in `relation` to `count`."""
        return RELATIONS[self.relation](found, self.count)


class CountedText(Counted):
    """As `Counted`, of what every answer has one of: an empty answer never passes."""

    @model_validator(mode="after")
    def _can_be_passed(self) -> Self:
        if self.count == 0 and self.relation != "at least":
            raise impossible(f"count: {self.relation} 0 leaves only an empty answer, which fails")
        return self


def impossible(reason: str) -> PydanticCustomError:
    """The error of a check that no answer can pass, for `field_problem`."""
    return PydanticCustomError("impossible", "{reason}", {"reason": reason})


def field_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """Which field of a line or of a check is wrong, and how; what pydantic found, in a sentence.

    An unknown field comes first: it may be the one that is missing, with a slip in its name.
    """
    found: list[ErrorDetails] = error.errors(include_url=False)
    details = next((item for item in found if item["type"] == "extra_forbidden"), found[0])
    if details["type"] == "impossible":
        return f"{details['msg']}; no answer can pass, mend the check"
    name, *items = details["loc"]
    field = "".join([str(name), *(f"[{item}]" for item in items)])
    match details["type"]:
        case "missing":
            return f"lacks the field {field!r}; add it"
        case "extra_forbidden":
            known = [other for other in model.model_fields if other != "kind"]
            return f"has no field {shown(name)}; {nearest(name, 'fields', known)}"
        case "value_error":
            return f"{field}: {details['ctx']['error']}"
        case "worded" | "single" | "letter" | "filled":
            return f"{field}: {shown(details['input'])} {details['msg']}"
    return f"{field}: {problem_of(details)}"


def nearest(name: Any, what: str, known: Collection[str]) -> str:
    """The known name that is most like `name`, and all of them."""
    near = difflib.get_close_matches(name[:100], known, n=1) if isinstance(name, str) else ()
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known {what}: {', '.join(sorted(known)) or 'none'}"
