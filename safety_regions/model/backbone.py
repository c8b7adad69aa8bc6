"""A language model that is studied: tokenise prompts for it, and give its weights addresses.

A `Backbone` tokenises prompts with an exact prompt/response boundary, and lists its scored linear layers: every
projection of every decoder block, with fused matrices split, but without embeddings and the output head.
`safety_regions.model.loading` opens one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from safety_regions.errors import StudyError, explain
from safety_regions.families import Family
from safety_regions.model.control_tokens import OPEN, ControlTokens
from safety_regions.model.prompt_format import PLACE, PromptFormat


class Slice(NamedTuple):
    """Rows ``start:stop`` of a linear layer's weight that form the projection at ``address``."""

    address: str
    start: int
    stop: int


class ScoredLinear(NamedTuple):
    """A linear layer of a decoder block; ``module.weight`` has shape (out, in)."""

    layer: int
    module: nn.Linear
    slices: tuple[Slice, ...]


class Encoded(NamedTuple):
    """Token ids of prompt and response together; the first ``prompt_length`` belong to the prompt."""

    ids: list[int]
    prompt_length: int


@dataclass(frozen=True)
class Backbone:
    """A causal language model in evaluation mode, its tokenizer, and the module names of its family.

    ``commit`` is the commit on the Hub that the files come from, None for a local folder. ``gguf`` says which GGUF file
    the weights were dequantised from, and from which quantisation; None for any other checkpoint. ``temperature`` is
    that of its answers; at 0 they are greedy. ``base`` is the checkpoint that it was aligned from, for methods that
    compare the two.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    family: Family
    source: str
    format: PromptFormat = field(default_factory=PromptFormat)
    commit: str | None = None
    gguf: dict | None = None
    temperature: float = 0.0
    base: "Backbone | None" = None

    @property
    def metadata(self) -> dict:
        """Metadata for output files: source, resolved commit, dtype, base, quantisation, and what prompts look like."""
        return {
            "source": self.source,
            "revision": self.commit,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "temperature": self.temperature,
            **({} if self.base is None else {"base": self.base.source, "base_revision": self.base.commit}),
            **({} if self.gguf is None else {"gguf": self.gguf}),
            **self.format.metadata(self.tokenizer),
        }

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def config(self):
        """The config of the text decoder (for a multimodal checkpoint, that part of its config)."""
        return self.model.config.get_text_config()

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, in order."""
        return self.model.get_submodule(self.family.layers[self.model.config.model_type])

    @cached_property
    def linears(self) -> tuple[ScoredLinear, ...]:
        """Every scored linear layer, sorted by block, then in the family's order."""
        return tuple(
            ScoredLinear(layer, block.get_submodule(path), tuple(self._slices(layer, path)))
            for layer, block in enumerate(self.blocks)
            for path in self.family.modules
        )

    def _slices(self, layer: int, path: str) -> Iterator[Slice]:
        start = 0
        out_features = self.blocks[layer].get_submodule(path).weight.shape[0]
        projections = self.family.modules[path]
        for projection in projections:
            rows = self.rows_of(projection) if len(projections) > 1 else out_features
            yield Slice(f"layers.{layer}.{projection}", start, start + rows)
            start += rows
        if start != out_features:
            raise StudyError(explain(f"{path} of block {layer}", f"{out_features} rows", f"{start} rows"))

    @property
    def decoder(self) -> nn.Module:
        """The decoder blocks with the embedding and the final norm, without the output head."""
        path = self.family.layers[self.model.config.model_type]
        return self.model.get_submodule(path.rpartition(".")[0])

    def logits(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
        """Next-token logits (positions, vocabulary) where the boolean mask ``positions`` (batch, tokens) is True.

        Divided or soft-capped as in the model (Granite, Gemma 2). They are on the device of the output head, which may
        differ from the first GPU if the backbone is spread over several.
        """
        decoded = self.decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        hidden = decoded.last_hidden_state
        logits = self.model.get_output_embeddings()(hidden[positions.to(hidden.device)])
        if self.family.logits_divisor is not None:
            logits = logits / getattr(self.config, self.family.logits_divisor)
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    @property
    def rope_switch(self) -> int | None:
        """Number of tokens above which long rope (Phi-3) uses other frequencies; None: there is no such number.

        transformers decides by the longest sequence of a batch, so longer and shorter ones must not share a batch.
        """
        rope = getattr(self.config, "rope_parameters", None) or {}
        return rope["original_max_position_embeddings"] if rope.get("rope_type") == "longrope" else None

    @property
    def head_dim(self) -> int:
        heads = self.config.num_attention_heads
        return getattr(self.config, "head_dim", None) or self.config.hidden_size // heads

    def rows_of(self, projection: str) -> int:
        """Output rows of a projection: heads x head_dim, kv heads x head_dim, intermediate size or hidden size."""
        rows = {
            "q": self.config.num_attention_heads * self.head_dim,
            "k": self.config.num_key_value_heads * self.head_dim,
            "v": self.config.num_key_value_heads * self.head_dim,
            "gate": self.config.intermediate_size,
            "up": self.config.intermediate_size,
        }
        return rows.get(projection, self.config.hidden_size)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """(address, weight of shape (out, in)) of every projection, fused matrices split (views)."""
        for linear in self.linears:
            for address, start, stop in linear.slices:
                yield address, linear.module.weight[start:stop]

    def weight_pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(address, weight, weight of the base), both of shape (out, in) and on one device, of every projection.

        Raises:
            StudyError: the two checkpoints have different projections or shapes.
        """
        self.check_base()
        for (where, weight), (_, base) in zip(self.weights(), self.base.weights(), strict=True):
            yield where, weight, base.to(weight.device)

    def check_base(self) -> None:
        """Raise StudyError if the base has other projections or shapes."""
        if self.shapes != self.base.shapes:
            found = f"other shapes than the base {self.base.source} ({_sizes(self)} and {_sizes(self.base)})"
            raise StudyError(
                explain(f"backbone {self.source}", found, "equal shapes", "the right `base` in its card")
            )

    @property
    def shapes(self) -> dict[str, list[int]]:
        """address -> [out, in] of every scored projection."""
        return {address: list(weight.shape) for address, weight in self.weights()}

    def render(self, prompt: str, answer: str | None = None) -> str:
        """The text that the model receives for a prompt, up to the start of the response; see `PromptFormat.render`.

        Raises:
            StudyError: the chat template fails on this prompt.
        """
        try:
            return self.format.render(self.tokenizer, prompt, answer)
        except Exception as error:  # a template is a program; its message may quote the prompt
            found = f"a failure on one of the prompts ({type(error).__name__})"
            where = f"backbone {self.source}: chat template"
            hint = "`template: raw` or `alpaca` in the backbone's card, or a filter in the dataset's card"
            raise StudyError(explain(where, found, "a template that takes any text", hint)) from None

    @cached_property
    def control(self) -> ControlTokens:
        """The tokens that only the template may write."""
        return ControlTokens(self.tokenizer, self.render(PLACE))

    def text_ids(self, text: str) -> list[int]:
        """Token ids of all that the model receives, in which `ControlTokens.marked` may have put marks."""
        if OPEN in text:
            return self._known(self._before + self.control.encode(text))
        # A chat template writes its own special tokens; for plain text the tokenizer adds them (a BOS, if it has one).
        ids = self.tokenizer(text, add_special_tokens=self.format.is_plain)["input_ids"]
        end = self.tokenizer.eos_token
        closed = end is not None and ids and ids[-1] == self.tokenizer.eos_token_id and not text.endswith(end)
        return self._known(ids[:-1] if closed else ids)

    def _known(self, ids: list[int]) -> list[int]:
        rows = self.model.get_input_embeddings().weight.shape[0]
        if ids and max(ids) >= rows:
            raise StudyError(
                explain(
                    f"backbone {self.source}: tokenizer",
                    f"token id {max(ids)}",
                    f"ids below {rows}, the rows of the model's embedding",
                    "the tokenizer that belongs to the weights",
                )
            )
        return ids

    @cached_property
    def _before(self) -> list[int]:
        """What the tokenizer adds before a plain text."""
        whole = self.tokenizer(PLACE, add_special_tokens=self.format.is_plain)["input_ids"]
        bare = self.tokenizer(PLACE, add_special_tokens=False)["input_ids"]
        return next(whole[:i] for i in range(len(whole)) if whole[i : i + len(bare)] == bare)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of the rendered prompt; see `ControlTokens` for special tokens that are spelt out in it.

        Raises:
            StudyError: an id that the model's embedding does not have.
        """
        return self.text_ids(self.render(self.control.marked(prompt)))

    def response_ids(self, response: str) -> list[int]:
        """Token ids of a response alone."""
        marked = self.control.marked(response)
        if OPEN in marked:
            return self._known(self.control.encode(marked))
        return self._known(self.tokenizer(response, add_special_tokens=False)["input_ids"])

    def encode(self, prompt: str, response: str) -> Encoded:
        """Tokenise prompt and response together, with the exact number of prompt tokens.

        If a token would cross the boundary, the prompt is tokenised alone, because the model saw those ids when it
        answered, and the ids of the response are appended.
        """
        rendered = self.render(self.control.marked(prompt))
        prompt_ids = self.text_ids(rendered)
        joint = self.text_ids(rendered + self.control.marked(response))
        if joint[: len(prompt_ids)] != prompt_ids:
            joint = prompt_ids + self.response_ids(response)
        return Encoded(joint, len(prompt_ids))


def _sizes(backbone: Backbone) -> str:
    return f"{len(backbone.blocks)} blocks, up {list(backbone.shapes['layers.0.up'])}"


@contextmanager
def replaced_forwards(
    modules: Sequence[nn.Module], replacement: Callable[[int, Callable], Callable]
) -> Iterator[None]:
    """Inside the `with` block, module number i runs ``replacement(i, forward)``, with its own forward; hooks stay."""
    own = [vars(module).get("forward") for module in modules]  # accelerate gives blocks on several GPUs one
    for number, module in enumerate(modules):
        module.forward = replacement(number, module.forward)
    try:
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


@contextmanager
def attached(handles: list) -> Iterator[None]:
    """Keep hooks for the duration of the block; all handles are removed at its end, even after an error."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
