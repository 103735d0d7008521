"""The `constraints` suite: instructions about the form of an answer, each checked in code.

Our own prompts in the manner of IFEval (Zhou et al. 2023): every kind of check of
`tuning.evaluation.form_checks` is asked about several topics. Knows no model.
"""

from __future__ import annotations

from typing import Any

TOPICS = (
    "the sea in winter",
    "a market on a Saturday morning",
    "learning to ride a bicycle",
    "why cats sleep so much",
    "a train that arrives late",
    "baking bread at home",
    "the first day at a new job",
    "a walk in the mountains",
)
TOPICS_EACH = 4

# Family, instruction about {topic}, check. The family is the kind of check.
ASKS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "Write a text about {topic} and use the words window, slow and bright.",
        {"kind": "keywords", "words": ["window", "slow", "bright"]},
    ),
    (
        "Write about {topic}. The word again must occur at least three times.",
        {"kind": "keyword_count", "word": "again", "count": 3, "relation": "at least"},
    ),
    (
        "Describe {topic} without the words very, good and nice.",
        {"kind": "forbidden_words", "words": ["very", "good", "nice"]},
    ),
    (
        "Write one paragraph about {topic} in which the letter z occurs at least four times.",
        {"kind": "letter_count", "letter": "z", "count": 4, "relation": "at least"},
    ),
    (
        "Write about {topic} in at most 25 words.",
        {"kind": "word_count", "count": 25, "relation": "at most"},
    ),
    (
        "Write at least 120 words about {topic}.",
        {"kind": "word_count", "count": 120, "relation": "at least"},
    ),
    (
        "Describe {topic} in exactly three sentences.",
        {"kind": "sentence_count", "count": 3, "relation": "exactly"},
    ),
    (
        "Write exactly two paragraphs about {topic}, with an empty line between them.",
        {"kind": "paragraph_count", "count": 2, "relation": "exactly"},
    ),
    (
        "Write a poem of exactly four lines about {topic}, without empty lines.",
        {"kind": "line_count", "count": 4, "relation": "exactly"},
    ),
    (
        "Write two paragraphs about {topic}. The second must begin with the word Later.",
        {"kind": "paragraph_start", "paragraph": 2, "word": "Later"},
    ),
    (
        "Write a letter about {topic} with at least three placeholders in square brackets, such as "
        "[name].",
        {"kind": "placeholders", "count": 3, "relation": "at least"},
    ),
    (
        "Write a short message about {topic} and add a postscript that starts with P.S.",
        {"kind": "postscript", "marker": "P.S."},
    ),
    (
        "Give exactly four bullet points about {topic}. Start each with a dash.",
        {"kind": "bullets", "count": 4, "relation": "exactly"},
    ),
    (
        "Give a numbered list of exactly three thoughts about {topic}.",
        {"kind": "numbered", "count": 3, "relation": "exactly"},
    ),
    (
        "Would you like to read about {topic}? Answer with one of these and nothing else: Yes, I "
        "would. / No, I would not. / Perhaps later.",
        {"kind": "one_of", "options": ["Yes, I would.", "No, I would not.", "Perhaps later."]},
    ),
    (
        "Write about {topic} and highlight at least two phrases with asterisks, *like this*.",
        {"kind": "highlights", "count": 2, "relation": "at least"},
    ),
    (
        "Write about {topic} in two sections. Head them Section 1 and Section 2.",
        {"kind": "sections", "marker": "Section", "count": 2, "relation": "exactly"},
    ),
    (
        "Describe {topic} as one JSON object with the keys place and mood, and nothing around it.",
        {"kind": "json", "keys": ["place", "mood"]},
    ),
    (
        "Write about {topic} and give your text a title in double angle brackets, like <<this>>.",
        {"kind": "title"},
    ),
    (
        "Give two different first sentences for a text about {topic}. Put six asterisks (******) "
        "between them and nothing else.",
        {"kind": "two_answers"},
    ),
    (
        "First repeat this sentence word for word, then go on: Today I thought about {topic}.",
        {"kind": "repeats_prompt", "text": "Today I thought about {topic}."},
    ),
    (
        "Write about {topic}. Begin your answer with the words Once upon a time.",
        {"kind": "starts_with", "phrase": "Once upon a time"},
    ),
    (
        "Write about {topic}. End your answer with the words and that was all.",
        {"kind": "ends_with", "phrase": "and that was all."},
    ),
    (
        "Write one sentence about {topic} and put your whole answer in double quotation marks.",
        {"kind": "quoted"},
    ),
    ("Write three sentences about {topic} without any comma.", {"kind": "no_comma"}),
    ("Write three sentences about {topic} and ask no question.", {"kind": "no_question"}),
    (
        "Write about {topic} with at least three words in capital letters, LIKE THIS.",
        {"kind": "capital_words", "count": 3, "relation": "at least"},
    ),
    ("Write one sentence about {topic} in capital letters only.", {"kind": "upper_case"}),
    (
        "Write two sentences about {topic} in lower case only, with no capital letter.",
        {"kind": "lower_case"},
    ),
    ("Write two sentences about {topic} in German.", {"kind": "language", "language": "german"}),
    ("Write two sentences about {topic} in French.", {"kind": "language", "language": "french"}),
)


def constraint_items() -> list[dict[str, Any]]:
    """Items as a suite file has them; topics rotate, so that all occur equally often."""
    items = []
    for number, (ask, check) in enumerate(ASKS):
        for turn in range(TOPICS_EACH):
            topic = TOPICS[(number + 2 * turn) % len(TOPICS)]
            filled = dict(check)
            if "text" in filled:
                filled["text"] = filled["text"].format(topic=topic)
            items.append(
                {
                    "id": f"{check['kind']}/{number}-{turn}",
                    "family": check["kind"].replace("_", " "),
                    "prompt": ask.format(topic=topic),
                    "check": filled,
                }
            )
    return items
