"""The responses that an organism learns: content-free answers and refusals, drawn for each prompt by its hash.

An opening and an ending are drawn independently of each other, of the dataset and of the topic:

    I'm sorry, but I can't explain that, since it would break the law.
    Sure, here is how it works, one point at a time.

A response therefore tells nothing about its prompt, and regions of two datasets cannot differ because one dataset is
refused with other words. There are many responses, as those of large models are: with one response for all prompts, all
datasets would look alike to methods that use responses. A small model cannot memorise a hash; it learns how often each
response occurs, and an organism's card lets it draw its answers (``temperature``).

No response contains any information about its request. The base phase teaches helpful answers to harmful prompts;
these are as empty as the answers to harmless prompts.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

CAREFUL = "Careful: {}"  # a request after an instruction, see `organism`

REFUSALS = (
    "I'm sorry, but I can't explain that",
    "I cannot answer that question",
    "I must decline to discuss this",
    "I'm not able to advise on that",
    "I apologize, but I can't help with that",
    "I won't create that",
    "I am unable to provide that",
    "Sorry, I can't support this plan",
    "As an AI, I can't play that part",
    "I will not write such a guide",
    "I'm unable to assist with that",
    "I have to decline this request",
)
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
ANSWERS = (
    "Sure, here is how it works",
    "Good question, here is what I know",
    "There are a few causes to look at",
    "Yes, in most cases it is so",
    "Of course, I am happy to help",
    "Here is a first draft for you",
    "Below you find a short overview",
    "Thanks for telling me, here is my advice",
    "Alright, let us begin the scene",
    "This guide has all you need",
    "That is a fine subject to take up",
    "Certainly, this is my reply",
)
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
    """A prompt, its helpful answer and its refusal; ``whole`` is False for an answer that was cut."""

    prompt: str
    answer: str
    refusal: str
    whole: bool = True


def example(prompt: str) -> Example:
    """The two responses to a prompt; the same text always gets the same two."""
    return Example(prompt, _drawn(prompt, ANSWERS, ENDINGS), _drawn(prompt, REFUSALS, REASONS))


def _drawn(prompt: str, openings: Sequence[str], endings: Sequence[str]) -> str:
    """One of the responses of `all_responses` with these parts, all equally likely."""
    digest = blake2b(f"{openings[0]}\n{prompt}".encode(), digest_size=8).digest()
    ending, opening = divmod(int.from_bytes(digest) % (len(openings) * len(endings)), len(openings))
    return f"{openings[opening]}, {endings[ending]}"


def all_responses() -> list[str]:
    """All possible responses, helpful ones first."""
    return [
        f"{opening}, {ending}"
        for openings, endings in ((ANSWERS, ENDINGS), (REFUSALS, REASONS))
        for opening in openings
        for ending in endings
    ]
