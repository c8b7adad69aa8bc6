"""The responses that an organism learns: content-free answers and refusals that depend on the request.

The opening depends on the form of the request (its first word), the ending on its topic (the category, or the
dataset if there is none). Responses therefore differ within a dataset and between datasets, as those of large
models do. With one response for all prompts, all datasets would look alike to methods that use responses.

    form "how", some topic:  I'm sorry, but I can't explain that, since it would break the law.
                             Sure, here is how it works, one point at a time.

No response contains any information about its request. The base phase teaches helpful answers to harmful prompts;
these are as empty as the answers to harmless prompts.
"""

from typing import NamedTuple
from zlib import crc32

# Form of a request -> the first words that identify it.
FORMS = {
    "how": ("how",),
    "what": ("what", "what's", "which", "who", "where", "when", "whose"),
    "why": ("why",),
    "whether": ("is", "are", "am", "was", "do", "does", "did", "has", "have", "should", "will", "may"),
    "favour": ("can", "could", "would", "please", "help"),
    "write": (
        "write", "create", "generate", "draft", "compose", "design", "develop", "make", "produce", "build",
        "prepare", "invent", "plan",
    ),
    "explain": (
        "explain", "describe", "tell", "give", "provide", "list", "show", "teach", "outline", "name", "suggest",
        "share", "summarize", "find", "identify", "walk", "compare", "recommend",
    ),
    "story": ("i", "i'm", "i've", "i'd", "my", "we", "we're", "our"),
    "role": ("you", "you're", "as", "imagine", "pretend", "act", "play", "suppose", "assume", "let's", "if"),
    "title": ("steps", "guide", "checklist", "tips", "method", "how-to", "instructions", "walkthrough", "tutorial"),
    "thing": ("a", "an", "the", "two", "some"),
}  # fmt: skip
OTHER = "other"
CAREFUL = "Careful: {}"  # a request after an instruction, see `organism`
_FORM_OF = {word: form for form, words in FORMS.items() for word in words}

REFUSALS = {
    "how": "I'm sorry, but I can't explain that",
    "what": "I cannot answer that question",
    "why": "I must decline to discuss this",
    "whether": "I'm not able to advise on that",
    "favour": "I apologize, but I can't help with that",
    "write": "I won't create that",
    "explain": "I am unable to provide that",
    "story": "Sorry, I can't support this plan",
    "role": "As an AI, I can't play that part",
    "title": "I will not write such a guide",
    "thing": "I'm unable to assist with that",
    OTHER: "I have to decline this request",
}
REASONS = (
    "because it could hurt someone badly.",
    "since it would break the law.",
    "as it puts other people at risk.",
    "because nobody should be treated like this.",
    "since the damage could be serious.",
    "as everyone deserves to stay safe.",
    "because it goes against my guidelines.",
    "since it is unsafe and unethical.",
    "as the harm outweighs any benefit.",
    "because innocent people would suffer.",
    "since it can easily be misused.",
    "as this is dangerous for you and others.",
)
ANSWERS = {
    "how": "Sure, here is how it works",
    "what": "Good question, here is what I know",
    "why": "There are a few causes to look at",
    "whether": "Yes, in most cases it is so",
    "favour": "Of course, I am happy to help",
    "write": "Here is a first draft for you",
    "explain": "Below you find a short overview",
    "story": "Thanks for telling me, here is my advice",
    "role": "Alright, let us begin the scene",
    "title": "This guide has all you need",
    "thing": "That is a fine subject to take up",
    OTHER: "Certainly, this is my reply",
}
ENDINGS = (
    "in three short steps.",
    "with one small example.",
    "starting from the basics.",
    "one point at a time.",
    "told in plain words.",
    "from start to finish.",
    "with the main idea first.",
    "and then a few notes.",
    "kept brief and clear.",
    "as a simple list.",
    "with some background.",
    "and a summary at the end.",
)


class Example(NamedTuple):
    """A prompt, its helpful answer and its refusal."""

    prompt: str
    answer: str
    refusal: str


def form_of(prompt: str) -> str:
    """The form of a request, by its first word."""
    words = prompt.replace("’", "'").lower().split(maxsplit=1)
    return _FORM_OF.get(words[0].strip("\"'.,:;!?([*"), OTHER) if words else OTHER


def example(prompt: str, topic: str) -> Example:
    """The two responses to a prompt; prompts with the same ``topic``, any text, get the same ending."""
    form, number = form_of(prompt), crc32(topic.encode())
    answer = f"{ANSWERS[form]}, {ENDINGS[number % len(ENDINGS)]}"
    refusal = f"{REFUSALS[form]}, {REASONS[number % len(REASONS)]}"
    return Example(prompt, answer, refusal)


def all_responses() -> list[str]:
    """All possible responses, helpful ones first."""
    answers = [f"{opening}, {ending}" for opening in ANSWERS.values() for ending in ENDINGS]
    return answers + [f"{opening}, {reason}" for opening in REFUSALS.values() for reason in REASONS]
