"""How a prompt becomes the text that a model receives: the checkpoint's own chat template, or a plain one.

Chat templates are programs. Some insert a system prompt of their own (Qwen 2.5, Llama 3), some write today's date
(Llama 3.2, SmolLM3), some open a thinking block (Qwen 3). A study must not depend on the day on which it runs, so a
template that asks for the date gets a fixed one, and the whole text around a prompt is part of the metadata.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType

from transformers import PreTrainedTokenizerBase

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{prompt}\n\n### Response:\n"
)
# Plain templates; `native` is the chat template of the checkpoint. The raw prompt ends with a newline, not a space,
# because byte-pair tokenizers merge a trailing space with the next word, which blurs the boundary.
PLAIN_TEMPLATES = {"alpaca": ALPACA, "raw": "{prompt}\n"}
TEMPLATES = ("native", *PLAIN_TEMPLATES)

DATE = "2024-07-26"
"""The date for templates that ask for one: the constant in Llama 3.2's template, for want of a clock."""
CLOCK = r"""strftime_now\(\s*(?P<quote>["'])(?P<format>.*?)(?P=quote)\s*\)"""
"""A call for today's date in a chat template."""
PLACE = "{prompt}"
"""Stands for the prompt in the metadata."""


@dataclass(frozen=True)
class PromptFormat:
    """The text around a prompt.

    Attributes:
        template: ``native`` (the checkpoint's chat template) or a key of `PLAIN_TEMPLATES`.
        system_prompt: the system message, or None.
        date: the date that templates get, YYYY-MM-DD.
        options: further variables of the template, such as ``enable_thinking``.
    """

    template: str = "native"
    system_prompt: str | None = None
    date: str = DATE
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_plain(self) -> bool:
        """Whether the text is the same for every checkpoint, without special tokens."""
        return self.template in PLAIN_TEMPLATES

    def render(self, tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str | None = None) -> str:
        """Return the text that the model receives for a prompt, up to the start of the response.

        With an answer: the text of both turns, for a model that judges the answer.
        """
        if self.is_plain:
            return PLAIN_TEMPLATES[self.template].replace(PLACE, prompt) + (answer or "")
        messages = [{"role": "user", "content": prompt}]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        return tokenizer.apply_chat_template(
            messages,
            chat_template=self._with_fixed_date(tokenizer.get_chat_template()),
            tokenize=False,
            add_generation_prompt=answer is None,
            **self.options,
        )

    def _with_fixed_date(self, template: str) -> str:
        """The template with every call of transformers' ``strftime_now`` replaced by the text that it gives."""
        day = date.fromisoformat(self.date)
        return re.sub(CLOCK, lambda call: repr(day.strftime(call["format"])), template)

    def asks_for_today(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether the text depends on the day although the date is fixed."""
        return not self.is_plain and "strftime_now(" in self._with_fixed_date(tokenizer.get_chat_template())

    def metadata(self, tokenizer: PreTrainedTokenizerBase) -> dict:
        """Return template, system prompt, date and options, the text around a prompt, and the hash of that text.

        The text shows what a template inserts by itself: a system prompt, a date, a closed thinking block.
        """
        frame = self.render(tokenizer, PLACE)
        return {
            "template": self.template,
            "system_prompt": self.system_prompt,
            "date": self.date,
            "template_options": dict(self.options),
            "prompt_frame": frame,
            "prompt_frame_sha256": hashlib.sha256(frame.encode()).hexdigest(),
        }
