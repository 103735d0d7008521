"""What the built-in form prompts are made of: subjects, ways to ask, demands on the form.

Tables only. A demand names the kind of check that decides it. The `constraints` suite has other
topics, words, numbers and sentences: no prompt of it can be made of these.
"""

from __future__ import annotations

TOPICS = tuple(
    topic.strip()
    for topic in """
    a rainy afternoon|old bridges|the moon|bees|friendship|a lost key|city parks|the colour green
    how rivers form|morning coffee|a long letter|chess|lighthouses|wild horses|snow|a school trip
    why leaves fall|public libraries|the night sky|gardens|a broken clock|soup|whales|a small island
    learning to swim|the sound of rain|night buses|honey|a violin|deserts|good neighbours|autumn
    an empty theatre|how to make tea|the history of paper|dogs|a birthday party|thunder|windmills
    a walk by the lake|apples|saving money|volcanoes|first aid|a new pair of shoes|museums
    how birds fly|reading aloud|a foggy street|maps|owls|a farm in spring|kindness|the telephone
    the invention of the wheel|a picnic|ice cream|a sleepless night|penguins|drawing|forests
    why we dream|a fishing boat|the taste of lemons|football|a summer holiday|candles|sleep
    a kitchen at noon|growing tomatoes|elephants|the wind|writing a diary|mountain huts|clouds
    an honest mistake|bicycles in a city|a quiet village|robots|stars|the smell of bread|hope
    keeping a promise|cooking rice|the sun|a noisy classroom|turtles|a bus driver|sunflowers
    music in the street|healthy food|a dream about flying|the harbour at dawn|recycling|patience
    an old photograph|tigers|a visit to the dentist|how magnets work|a chess club|water|courage
    """.replace("\n", "|").split("|")
    if topic.strip()
)
SUBJECTS = (
    "Write about {topic}.",
    "Describe {topic}.",
    "Tell me about {topic}.",
    "Tell me something about {topic}.",
    "Write a short text about {topic}.",
    "Say something about {topic}.",
    "Explain {topic} to a friend.",
    "Give a short account of {topic}.",
    "I would like to read about {topic}.",
    "Please write a few lines on {topic}.",
    "What comes to mind when you think of {topic}?",
    "Compose a brief piece on {topic}.",
)
PLAIN = (
    "Write a short paragraph of three or four sentences about {topic}.",
    "Describe {topic}.",
)
POEM = "Write a short poem about {topic}."
QUESTIONS = (
    "What is {topic} like?",
    "Why might someone care about {topic}?",
    "Name something surprising about {topic}.",
    "How would you explain {topic} to a child?",
)
LAYOUTS = (
    "{subject} {demand}",
    "{demand} {subject}",
    "{subject}\n\n{demand}",
    "{subject} {demand}",
)

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WORDS = (
    "river",
    "candle",
    "quiet",
    "golden",
    "stone",
    "gentle",
    "whisper",
    "morning",
    "garden",
    "paper",
    "silver",
    "journey",
    "shadow",
    "basket",
    "winter",
    "harbour",
    "lantern",
    "music",
    "memory",
    "bread",
    "circle",
    "feather",
    "honest",
    "orange",
    "patient",
    "corner",
    "island",
    "simple",
    "travel",
    "velvet",
    "wonder",
    "yellow",
    "bridge",
    "copper",
    "dance",
    "early",
    "forest",
)
COMMON = ("really", "beautiful", "important", "great", "many", "often", "thing", "people", "just")
LETTERS = {
    "q": "queen quiet quick question quilt square quarter equal",
    "x": "box fox mix six extra taxi exact next",
    "k": "kind keep kite lake milk walk dark book",
    "j": "joy jump job jacket jungle enjoy major join",
    "v": "river very love voice seven village over ever",
    "b": "blue bird book bread bridge baby about above",
    "w": "water wind winter walk warm wide power town",
}
MARKERS = ("Part", "Chapter", "Paragraph", "Point", "Step")
POSTSCRIPTS = ("P.S.", "PS:", "P.P.S.")
KEYS = (
    ("title", "text"),
    ("topic", "summary"),
    ("name", "description"),
    ("subject", "detail"),
    ("heading", "body"),
    ("theme", "sentence"),
    ("title", "author", "text"),
    ("topic", "fact", "opinion"),
    ("answer",),
    ("question", "answer"),
    ("idea", "reason"),
)
OPENINGS = (
    "Long ago,",
    "In short,",
    "To begin with,",
    "Let me explain:",
    "My dear friend,",
    "Every time I look back,",
    "There was a time when",
    "Here is what I know:",
    "Listen carefully:",
    "As we all know,",
)
CLOSINGS = (
    "That is the whole story.",
    "Thank you for reading.",
    "and nothing more.",
    "The end.",
    "Is that not enough?",
    "So it goes.",
    "I hope this helps.",
    "Until next time!",
    "and so they went home.",
)
CHOICES = (
    ("Yes.", "No.", "Maybe."),
    ("Always", "Sometimes", "Never"),
    ("I agree.", "I disagree.", "I have no opinion."),
    ("true", "false"),
    ("Good idea.", "Bad idea.", "Hard to say."),
    ("Of course.", "Not today.", "Ask me tomorrow."),
)
STARTERS = ("However", "Today", "Then", "Meanwhile", "Still", "Soon", "Tomorrow", "Finally")
LANGUAGES = ("German", "French", "Spanish", "Italian")

# Kind of check: demands on the answer, some with the {topic} in them, which need no subject beside.
# {n} is a number in figures or in words, {s} its plural s.
DEMANDS: dict[str, tuple[str, ...]] = {
    "sentence_count": (
        "Use exactly {n} sentence{s}.",
        "Your answer must have {n} sentence{s}, no more and no less.",
        "Answer in {n} sentence{s}.",
        "Keep it to exactly {n} sentence{s}.",
        "I want {n} sentence{s} and nothing else.",
        "Tell me in {n} sentence{s} about {topic}.",
        "Sum up {topic} in {n} sentence{s}.",
        "Explain {topic} in {n} sentence{s}.",
    ),
    "at_most_sentences": (
        "Use no more than {n} sentence{s}.",
        "Do not write more than {n} sentence{s}.",
        "Answer in {n} sentence{s} or fewer.",
        "In no more than {n} sentence{s}, say what you know of {topic}.",
    ),
    "at_most_words": (
        "Use at most {n} words.",
        "Do not use more than {n} words.",
        "Keep it under {n} words.",
        "The limit is {n} words.",
        "Be brief: {n} words or fewer.",
        "Say something about {topic} in {n} words or fewer.",
        "Describe {topic}, using no more than {n} words.",
    ),
    "at_least_words": (
        "Use at least {n} words.",
        "Your answer must have {n} words or more.",
        "Write no fewer than {n} words.",
        "Give me {n} words or more on {topic}.",
        "Write a text of no fewer than {n} words on {topic}.",
    ),
    "paragraph_count": (
        "Your text must have exactly {n} paragraphs, separated by a blank line.",
        "Divide it into {n} paragraphs with a blank line between them.",
        "Use {n} paragraphs, no more and no less.",
        "Compose {n} paragraphs on {topic}, parted by a blank line.",
        "Tell me about {topic} in {n} paragraphs.",
    ),
    "line_count": (
        "Write it as a poem of {n} lines.",
        "It should be a poem with exactly {n} lines.",
        "Make it a poem; it must have {n} lines and no blank line.",
        "Put it into verse, {n} lines long.",
        "Compose a poem on {topic} that has {n} lines.",
        "Write {n} lines of verse on {topic}.",
    ),
    "haiku": (
        "Write it as a haiku.",
        "Make it a haiku of three lines.",
        "Answer with a haiku, three short lines.",
        "Write a haiku on {topic}.",
        "I would like a haiku on {topic}.",
        "Compose a haiku for {topic}.",
    ),
    "paragraph_start": (
        "Use two paragraphs and start the second one with the word {word}.",
        "Write two paragraphs; the first word of the second paragraph must be {word}.",
        "Tell me about {topic} in two paragraphs, the second of which opens with {word}.",
    ),
    "placeholders": (
        "Write it as a letter with at least {n} placeholders in square brackets, like [date].",
        "Make it a letter template. Use {n} or more placeholders such as [address].",
        "Use no fewer than {n} placeholders in square brackets, for example [place].",
        "Draft a letter on {topic} that leaves {n} or more blanks in square brackets, like [city].",
    ),
    "postscript": (
        "Add a postscript at the end that starts with {word}",
        "At the end of your answer, add a postscript beginning with {word}",
        "Finish with a line that starts with {word}",
        "Send a friend a note on {topic} that closes with a {word} line.",
    ),
    "bullets": (
        "Answer with exactly {n} bullet points.",
        "Give me {n} bullet points, each on its own line after a dash.",
        "Use a list of {n} bullets, like this: - an item",
        "Write {n} bullet points and nothing else.",
        "Format your answer as {n} bullet points.",
        "List {n} bullet points on {topic}.",
        "I need {n} bullet points on {topic}.",
        "Name {n} things about {topic} as bullet points.",
    ),
    "numbered": (
        "Answer with a numbered list of {n} items.",
        "Number your points from 1 to {figure}.",
        "Make a numbered list with exactly {n} entries.",
        "List {n} facts about {topic}, numbered.",
        "Name {n} things about {topic} as a numbered list.",
    ),
    "one_of": (
        "Would you recommend it? Choose one of these answers and write nothing else: {options}",
        "Is it worth the time? Reply with exactly one of: {options}",
        "Pick one of these options as your whole answer: {options}",
        "Do you like {topic}? Say only one of these: {options}",
    ),
    "highlights": (
        "Highlight at least {n} phrases with asterisks, for example *a phrase*.",
        "Put {n} or more parts of your text between asterisks, like *so*.",
        "Mark at least {n} important words in *italics* with asterisks.",
        "Tell me about {topic} with {n} or more parts marked *like that*.",
    ),
    "sections": (
        "Your answer must have {n} sections. Begin each with {word} and a number, as in {word} 1.",
        "Split it into {n} sections headed {word} 1, {word} 2 and so on.",
        "Tell me about {topic} in {n} sections called {word} 1, {word} 2 and so on.",
    ),
    "json": (
        "Answer with a JSON object that has the key{s} {keys}.",
        "Reply in JSON only. Use the key{s} {keys}.",
        "Your whole answer must be one valid JSON object with the key{s} {keys}.",
        "Give the answer as JSON with the key{s} {keys} and no other text.",
        "Tell me about {topic} in JSON with the key{s} {keys}.",
        "Return a JSON object with the key{s} {keys} about {topic}.",
    ),
    "title": (
        "Add a title wrapped in double angle brackets, such as <<a title>>.",
        "Your answer must contain a title in double angular brackets, for example <<title>>.",
        "Compose a text on {topic} that has a title in << and >>.",
    ),
    "two_answers": (
        "Give two different answers, separated by six asterisks: ******",
        "Write two versions. Separate them with ****** and nothing else.",
        "Describe {topic} twice, in different words, with ****** between the two.",
    ),
    "repeats_prompt": (
        "Before you answer, repeat this sentence exactly: {text}",
        "Begin by repeating the following sentence word for word: {text}",
    ),
    "starts_with": (
        "Start your answer with: {phrase}",
        'The answer must begin with "{phrase}"',
        "The first words of your answer must be: {phrase}",
        "Tell me about {topic}, starting with the words: {phrase}",
    ),
    "ends_with": (
        "Finish your answer with this exact phrase: {phrase}",
        'The last words must be "{phrase}" and no other words may follow.',
        "Your answer has to end with: {phrase}",
        "Close with the words {phrase}",
        "Tell me about {topic}, and let the last words be: {phrase}",
    ),
    "quoted": (
        "Wrap your entire answer in double quotation marks.",
        "Your whole reply must stand between double quotes.",
        "Put the complete answer inside double quotation marks.",
        "Say something about {topic}, all of it inside double quotation marks.",
    ),
    "no_comma": (
        "Do not use any commas.",
        "Your answer must not contain a comma.",
        "Avoid commas altogether.",
        "Tell me about {topic} and leave out all commas.",
    ),
    "no_question": (
        "Do not ask anything.",
        "Use no question marks.",
        "Tell me about {topic} and use no question mark.",
    ),
    "capital_words": (
        "Write at least {n} words in ALL CAPITALS.",
        "Use words in all capital letters at least {n} times.",
        "Tell me about {topic} and put {n} words or more in CAPITALS.",
    ),
    "upper_case": (
        "Use capital letters only.",
        "Your entire answer must be in uppercase.",
        "WRITE EVERYTHING IN CAPITALS.",
        "Answer in all caps.",
        "TELL ME ABOUT {topic} IN CAPITAL LETTERS.",
        "Say something about {topic}, all in capitals.",
    ),
    "lower_case": (
        "Use lowercase letters only.",
        "Your entire answer should be in lowercase. No capital letters are allowed.",
        "write everything in small letters, without any capitals.",
        "Say something about {topic}, all in lowercase.",
        "tell me about {topic} without a single capital letter.",
    ),
    "language": (
        "Answer in {word}.",
        "Your whole answer must be in {word}, no other language is allowed.",
        "Please reply in {word} only.",
        "Tell me about {topic} in {word}.",
    ),
    "keywords": (
        "Include the words {words}.",
        "Make sure that the words {words} appear in your answer.",
        "Your text must contain {words}.",
        "Use each of these words: {words}.",
        "Tell a little story of {topic} in which the words {words} occur.",
        "Using the words {words}, tell me about {topic}.",
    ),
    "keyword_count": (
        "Use the word {word} at least {n} times.",
        "The word {word} should appear {n} times or more.",
        "Mention {word} at least {n} times.",
        "Tell me about {topic} and say {word} {n} times or more.",
    ),
    "forbidden_words": (
        "Do not use the words {words}.",
        "Avoid the words {words}.",
        "The words {words} must not appear in your answer.",
        "Tell me about {topic}, but never say {words}.",
        "Say something about {topic} that has none of the words {words} in it.",
    ),
    "letter_count": (
        "The letter {word} must appear at least {n} times.",
        "Use the letter {word} at least {n} times.",
        "Tell me about {topic} with {n} or more of the letter {word}.",
    ),
}
