"""Does an answer say who wrote it? Knows texts and names, nothing else.

A blind vote on an answer that names its model is not blind; such answers are marked, never
changed or dropped. What counts is that the answer speaks of itself: "I am Claude" and "I was made
by Anthropic" do, "I am reading about Claude Monet" does not. docs/arena.md says how often that is
judged rightly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

# Models whose name says nothing else.
PLAIN = (
    *(
        "chatgpt",
        r"gpt(?:[ -]?\d\w*(?:\.\d)?(?:[ -]?(?:turbo|mini|o))?)?",
        "deepseek",
        "qwen",
        "qwq",
    ),
    *("smollm", "mixtral", "olmo", "pythia", r"command[ -]?r", "nemotron", "internlm", "chatglm"),
    *("baichuan", "ernie bot", "gigachat", "yandexgpt", "starcoder", "codellama", "tinyllama"),
    *("wizardlm", "openassistant", "hunyuan", "doubao", "通义千问", "千问", "文心一言", "豆包"),
    *("混元", "智谱清言", "讯飞星火", "百川", "元宝"),
    *(r"phi[ -]?\d", r"falcon[ -]?\d", r"granite[ -]?\d", r"bloomz?[ -]?\d", r"yi[ -]?\d"),
)
# Names of people, animals and stars as well: they count as a name only, with a capital.
AMBIGUOUS = (
    *("Claude", "Gemini", "Gemma", "Llama", "LLaMA", "Mistral", "Grok", "Vicuna", "Alpaca"),
    *("Bard", "Copilot", "Falcon", "Phi", "Granite", "Kimi", "Nova", "Jamba", "Hermes", "Aya"),
    *("Orca", "Dolly", "Zephyr", "Meta AI", "Sonnet", "Opus", "Haiku"),
)
MAKERS = (
    *("OpenAI", "Open AI", "Anthropic", "Google", "DeepMind", "Meta", "Facebook", "Mistral"),
    *("Microsoft", "xAI", "IBM", "Cohere", "Amazon", "AWS", "Apple", "NVIDIA", "Alibaba", "Qwen"),
    *("DeepSeek", "Baidu", "Tencent", "ByteDance", "Moonshot", "Zhipu", "MiniMax", "Hugging ?Face"),
    *("EleutherAI", "Allen Institute", "AI2", "LG", "Samsung", "Stability AI", "Databricks"),
    *("Technology Innovation Institute", "TII", "Salesforce", "Yandex", "Sber", "LAION", "LMSYS"),
    *(
        "阿里巴巴",
        "阿里云",
        "百度",
        "腾讯",
        "字节跳动",
        "月之暗面",
        "智谱",
        "深度求索",
        "讯飞",
        "华为",
    ),
    *("谷歌", "微软", "Яндекс\\w*", "Сбер\\w*"),
)

# What may stand between "I am" and the name: words that say what sort of thing speaks.
_KIND = (
    "a|an|the|your|actually|really|just|indeed|in fact|called|named|known as|based on|powered by"
    "|running on"
    "|part|from|version|variant|instance|member|family|of|large|small|language|ai"
    "|artificial|intelligence|chat|open|source|open-source|helpful|friendly|virtual|digital"
    "|conversational|multilingual|fine-tuned|instruction-tuned|pretrained|trained|model|models"
    "|assistant|chatbot|bot|system|program|llm|series|new|latest|advanced|powerful|generative"
    "|desarrollado|entrenado|creado|créé|développé|entraîné|criado|desenvolvido|treinado|creato"
    "|sviluppato|addestrato|созданная|разработанная|обученная"
    "|research|and|text-based|made|created|developed|built|designed|which|that|was|is|name"
    "|ein|eine|das|der|großes|großer|sprachmodell|ki|ki-assistent|ki-modell|modell|assistent"
    "|namens|von|un|une|le|la|grand|grande|modèle|de|langage|langue|assistant|ia|nommé|appelé|basé"
    "|sur|un|una|el|gran|modelo|lenguaje|asistente|llamado|basado|en|um|uma|o|linguagem"
    "|assistente|chamado|il|modello|linguistico|di|языковая|модель|это|большая|ассистент|ии"
)
_ONE = rf"(?:(?:{_KIND})(?:[\s,:*_\"'“”„«»—–-]+))"
_GAP = rf"{_ONE}{{0,9}}[*_\"'“”„«»]*"
_I_AM = (
    r"(?<![^\W_])(?:i am|i'm|i’m|my name is|my name's|call me|as(?! of\b)"
    r"|you(?:'re|’re| are) (?:talking|chatting|speaking) (?:to|with)"
    r"|ich bin|ich heiße|mein name ist|nennen sie mich|als|je suis|je m['’]appelle|mon nom est"
    r"|yo soy|soy|me llamo|mi nombre es|eu sou|sou|meu nome é|me chamo|sono|mi chiamo"
    r"|il mio nome è|я|меня зовут|моё имя|أنا|اسمي|मैं|मेरा नाम)[\s,:—–-]+"
)
_MADE = (
    r"(?:made|created|developed|built|trained|designed|produced|released|provided|pre-?trained"
    r"|fine-?tuned|programmed|engineered)"
)
_FAR = r"[^.!?\n。！？]{0,25}?"
_EAST = r"[一-鿿\s，、“”\"「」A-Za-z]{0,14}?"


@lru_cache(maxsize=64)
def _patterns(served: frozenset[str]) -> tuple[tuple[re.Pattern[str], ...], tuple[str, ...]]:
    """Expressions of self-introductions, and served names that count wherever they stand."""
    own = {name for full in served for name in (full, full.rsplit("/", 1)[-1]) if len(name) > 2}
    owners = {full.split("/", 1)[0] for full in served if "/" in full.strip("/")}
    anywhere = tuple(sorted(name for name in own if re.search(r"[\d/_-]", name)))
    plain = "|".join([*sorted(map(re.escape, own), key=len, reverse=True), *PLAIN])
    name = rf"(?:(?i:{plain})|(?:{'|'.join(AMBIGUOUS)}))(?![^\W\d_])"
    maker = rf"(?:{'|'.join([*sorted(map(re.escape, owners)), *MAKERS])})(?![^\W_])"
    eastern = rf"(?:(?i:{plain})|(?:{'|'.join(AMBIGUOUS)}))(?![a-zA-Z])"
    eastern_maker = rf"(?:{'|'.join([*sorted(map(re.escape, owners)), *MAKERS])})"
    i_am, made = f"(?i:{_I_AM})", f"(?i:{_MADE})"
    gap = f"(?i:{_GAP})"
    told = (
        rf"{i_am}{gap}(?P<name>{name})",
        rf"\b(?i:as an?\s)[^.!?\n]{{0,20}}(?i:language model|ai assistant|ai model)\b"
        rf"[^.!?\n]{{0,50}},\s*(?P<name>{name})",
        rf"(?<![^\W_])I,\s*(?P<name>{name}),",
        rf"(?i:(?:this is|it is|it's)\s+){gap}(?P<name>{name})(?=\s*[.!,]|\s+(?:here|speaking)\b)",
        rf"{i_am}(?i:{_ONE}{{1,9}})(?i:{_MADE}|from|by|of|von|par|por|da|de|pela|pelo)\s+{_FAR}{maker}",
        rf"\b(?i:i|i've|i’ve|we)\s+(?i:was|were|am|have been|been)\s+(?:\w+\s+){{0,2}}{made}"
        rf"(?:\s+(?i:and)\s+{made})?\s+(?i:by|at|from)\s+{_FAR}{maker}",
        rf"{maker}(?:'s|’s)?\s+(?:\w+\s+){{0,2}}{made}\s+(?i:me)\b",
        rf"\b(?i:my (?:creators?|developers?|makers?|parent company|company|team|owner))\b"
        rf"\s*(?i:is|are|at|,|:|from)?\s*(?i:a company called\s+)?(?i:the\s+)?{maker}",
        rf"\b(?i:i|we)\s+(?i:belong to|come from|represent|run on|am run by)\s+{_FAR}"
        rf"(?:{maker}|(?P<name>{name}))",
        rf"(?i:ich (?:wurde|bin)\s+)(?:\w+\s+){{0,3}}?(?i:von)\s+{_FAR}{maker}{_FAR}"
        rf"(?i:entwickelt|trainiert|erstellt|geschaffen|erschaffen|gebaut|programmiert)",
        rf"(?i:j['’]ai été|je suis)\s+(?i:créée?|développée?|entraînée?|conçue?)\s+(?i:et \w+ )?"
        rf"(?i:par)\s+{_FAR}{maker}",
        rf"(?i:fui|he sido|fui)\s+(?i:cread[oa]|desarrollad[oa]|entrenad[oa]|diseñad[oa]|criad[oa]"
        rf"|desenvolvid[oa]|treinad[oa])\s+(?i:por|pela|pelo)\s+{_FAR}{maker}",
        rf"(?i:sono stat[oa]\s+(?:creat|sviluppat|addestrat)[oa]\s+da(?:ll[ao’'])?)"
        rf"\s*{_FAR}{maker}",
        rf"(?i:меня\s+(?:создал|разработал|обучил)\w*)\s+{_FAR}{maker}",
        rf"(?i:я)\b[^.!?\n]{{0,40}}?(?i:создан|разработан|обучен)\w*\s+{_FAR}{maker}",
        rf"(?:我是|我叫|我的名字[是叫]|叫我|作为){_EAST.replace('，', '')}(?P<name>{eastern})",
        rf"我(?:是|由|来自){_EAST}{eastern_maker}{_EAST}"
        rf"(?:开发|训练|研发|研制|创建|创造|推出|打造|设计|构建|開發|訓練|研發)",
        rf"(?:私|わたし|僕|俺)(?:は|の名前は)[^。！？\n]{{0,12}}?(?P<name>{eastern})",
        rf"(?:私|わたし|僕|俺)は[^。！？\n]{{0,12}}?{eastern_maker}[^。！？\n]{{0,8}}?"
        rf"(?:開発|作成|作ら|訓練|学習)",
        rf"(?:저는|제 이름은|나는)[^.!?\n]{{0,12}}?(?P<name>{eastern})",
        rf"(?:저는|나는)[^.!?\n]{{0,12}}?{eastern_maker}[^.!?\n]{{0,8}}?(?:개발|만든|만들|훈련|제작)",
        rf"(?:تم تطويري|طورتني|أنشأتني|تم إنشائي){_FAR}{maker}",
        rf"मुझे\s+{maker}\s+(?:ने|द्वारा)",
    )
    return tuple(map(re.compile, told)), anywhere


_AI_WORD = re.compile(r"\s+(?:(?i:model|ai|assistant|chatbot|llm|language)\b)")
_SURNAME = re.compile(r"(?:\s+|-)(?P<next>[A-ZÀ-Þ][\w’'-]*)")
_PRODUCT = re.compile(
    r"(?:AI|Sonnet|Opus|Haiku|Instant|Instruct|Pro|Ultra|Flash|Nano|Large|Medium|Small|Chat|Code"
    r"|Turbo|Vision|Next|Max|Plus|Mini|Advanced|Assistant|Model|I|LLM|Nemo|[A-Z]*\d.*|[IVX]+)"
)


def _is_of_a_model(text: str, found: re.Match[str]) -> bool:
    """False for "I am a Gemini" and "I am Claude Monet", who are people."""
    name = found.groupdict().get("name")
    if name is None or name not in AMBIGUOUS:
        return True
    before, after = text[: found.start("name")].rstrip(" *_\"'“„«"), text[found.end("name") :]
    if re.search(r"(?i:\b(?:a|an|ein|eine|un|une|una|um|uma))$", before) and not _AI_WORD.match(
        after
    ):
        return False
    if after.startswith(("'", "’")):
        return False
    surname = _SURNAME.match(after)
    return surname is None or _PRODUCT.fullmatch(surname["next"]) is not None


def telling_words(names: Iterable[str], addresses: Iterable[str]) -> frozenset[str]:
    """What a server's words may not hold before the reveal: names, their parts, who makes models.

    Too much rather than too little: what is held back costs a voter one line.
    """
    words = {
        "chatgpt", "gpt-", "claude", "gemini", "gemma", "llama", "qwen", "mistral", "mixtral",
        "deepseek", "smollm", "olmo", "vicuna", "alpaca", "pythia", "grok", "falcon", "granite",
    }  # fmt: skip
    for name in names:
        last = name.rsplit("/", 1)[-1]
        beginning = re.match(r"[^\W\d_]*", last)
        words |= {name, last}
        if beginning is not None and len(beginning[0]) > 3:
            words.add(beginning[0])
    for address in addresses:
        host = urlsplit(address).hostname or ""
        words |= {host, urlsplit(address).netloc}
    return frozenset(word for word in words if len(word) > 1)


def names_itself(text: str, names: Iterable[str]) -> bool:
    """Whether the text gives away one of `names`, or introduces itself as a model or a maker's.

    A served name with a digit, a dash or a slash in it counts anywhere; one that is an ordinary
    word ("starter") and the known ones only where the answer introduces itself by it.
    """
    patterns, anywhere = _patterns(frozenset(names))
    for name in anywhere:
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE):
            return True
    return any(
        _is_of_a_model(text, found) for pattern in patterns for found in pattern.finditer(text)
    )
