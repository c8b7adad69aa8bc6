"""Tokenise a prompt as text, also where it spells out a token that controls the model, such as ``<|im_end|>``.

Tokenizers turn the spelling of a special token into that token, wherever it stands. A prompt that contains
``<|im_end|>`` could so end the user's turn, and what follows would be no prompt any more. Here only the template writes
such tokens; in a prompt or a response their spelling is ordinary text.

transformers' ``split_special_tokens`` would split those of the template too. So the template is rendered with marks in
place of the spellings in the prompt. A copy of the tokenizer then knows each control token by a private character
instead of its spelling: the template's tokens become these characters, and the marks become the spellings again.
"""

import json
import re
from functools import cached_property

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from safety_regions.errors import StudyError, explain

PRIVATE = 0xF0000
"""The first code point for private use beyond the basic plane; character i stands for control token i."""
OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Code points that are no characters, around the number of a control token that a prompt spells out."""


class ControlTokens:
    """The control tokens of a tokenizer with a template.

    These are its special tokens, and other added tokens that the template itself writes (``<think>`` of Qwen 3).

    Attributes:
        ids: spelling -> token id.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, frame: str) -> None:
        """Find the control tokens.

        Args:
            frame: the text that the model receives for a prompt without control tokens.
        """
        self._tokenizer = tokenizer
        written = tokenizer(frame, add_special_tokens=False)["input_ids"]
        self.ids = {
            str(token): number
            for number, token in sorted(tokenizer.added_tokens_decoder.items())
            if token.special or (number in written and str(token).strip())
        }
        self._spellings = list(self.ids)
        longest_first = sorted(self._spellings, key=len, reverse=True)
        self._pattern = "|".join(map(re.escape, longest_first)) or "(?!)"

    def marked(self, text: str) -> str:
        """The text with a mark in place of every spelling of a control token."""
        return re.sub(self._pattern, lambda found: f"{OPEN}{self._number(found)}{CLOSE}", text)

    def _number(self, found: re.Match) -> int:
        return self._spellings.index(found[0])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text with marks; spellings in it are control tokens, and marks are text.

        Raises:
            StudyError: the tokenizer would make control tokens of the marks.
        """
        hidden = re.sub(self._pattern, lambda found: chr(PRIVATE + self._number(found)), text)
        spelt = re.sub(f"{OPEN}(\\d+){CLOSE}", lambda mark: self._spellings[int(mark[1])], hidden)
        copy, own = self._copy
        ids = [own.get(number, number) for number in copy.encode(spelt, add_special_tokens=False).ids]
        unknown = self._tokenizer.unk_token_id
        control = set(self.ids.values()) - {unknown}
        expected = [self.ids[found[0]] for found in re.finditer(self._pattern, text)]
        if [number for number in ids if number in control] != [n for n in expected if n != unknown]:
            raise StudyError(
                explain(
                    "tokenizer",
                    "special tokens inside a prompt or a response that cannot be read as text",
                    "a tokenizer that builds its tokens from smaller ones (BPE)",
                    "a filter in the dataset's card that drops such rows",
                )
            )
        return ids

    @cached_property
    def _copy(self) -> tuple[Tokenizer, dict[int, int]]:
        """The tokenizer with private characters as control tokens, and its id -> own id for all added tokens."""
        state = json.loads(self._tokenizer.backend_tokenizer.to_str())
        state |= {"post_processor": None, "truncation": None, "padding": None}
        own = {}
        for token in state["added_tokens"]:
            number = token["id"]
            if token["content"] in self.ids:
                token |= {
                    "content": chr(PRIVATE + self._spellings.index(token["content"])),
                    "normalized": False,
                }
            own[token["content"]] = number
        copy = Tokenizer.from_str(json.dumps(state))
        return copy, {n: own[token.content] for n, token in copy.get_added_tokens_decoder().items()}
