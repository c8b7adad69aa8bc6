"""Load a checkpoint, tokenise prompts for it, and give its weights addresses.

`load_backbone` opens a checkpoint of a known family (safetensors only, no remote code). A `Backbone` renders
and tokenises prompts with an exact prompt/response boundary, and lists its scored linear layers: every
projection of every decoder block, with fused matrices split, but without embeddings and the output head.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.families import Family, families, family_of
from safety_regions.model.hub import Place, fetch_checkpoint, weight_files

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{prompt}\n\n### Response:\n"
)
# Plain templates; `native` is the chat template of the checkpoint. The raw prompt ends with a newline, not a space,
# because byte-pair tokenizers merge a trailing space with the next word, which blurs the boundary.
PLAIN_TEMPLATES = {"alpaca": ALPACA, "raw": "{prompt}\n"}
TEMPLATES = ("native", *PLAIN_TEMPLATES)


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

    ``commit`` is the commit on the Hub that the files come from, None for a local folder.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    family: Family
    source: str
    template: str = "native"
    system_prompt: str | None = None
    commit: str | None = None

    @property
    def metadata(self) -> dict:
        """Metadata about the backbone for output files: source, resolved commit, dtype, template, system prompt."""
        return {
            "source": self.source,
            "revision": self.commit,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "template": self.template,
            "system_prompt": self.system_prompt,
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

    @property
    def shapes(self) -> dict[str, list[int]]:
        """address -> [out, in] of every scored projection."""
        return {address: list(weight.shape) for address, weight in self.weights()}

    def render(self, prompt: str) -> str:
        """The text that the model receives for a prompt, up to the start of the response."""
        if self.template in PLAIN_TEMPLATES:
            return PLAIN_TEMPLATES[self.template].format(prompt=prompt)
        messages = [{"role": "user", "content": prompt}]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _ids(self, text: str) -> list[int]:
        # A chat template writes its own special tokens; for plain text the tokenizer adds them (a BOS, if it has one).
        ids = self.tokenizer(text, add_special_tokens=self.template in PLAIN_TEMPLATES)["input_ids"]
        end = self.tokenizer.eos_token
        closed = end is not None and ids and ids[-1] == self.tokenizer.eos_token_id and not text.endswith(end)
        return ids[:-1] if closed else ids

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of the rendered prompt."""
        return self._ids(self.render(prompt))

    def encode(self, prompt: str, response: str) -> Encoded:
        """Tokenise prompt and response together, with the exact number of prompt tokens.

        If a token would cross the boundary, the prompt is tokenised alone, because the model saw those ids when it
        answered, and the ids of the response are appended.
        """
        rendered = self.render(prompt)
        prompt_ids = self._ids(rendered)
        joint = self._ids(rendered + response)
        if joint[: len(prompt_ids)] != prompt_ids:
            joint = prompt_ids + self.tokenizer(response, add_special_tokens=False)["input_ids"]
        return Encoded(joint, len(prompt_ids))


@contextmanager
def attached(handles: list) -> Iterator[None]:
    """Keep hooks for the duration of the block; all handles are removed at its end, even after an error."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def load_backbone(card: dict, files: Sequence[str | Path] = ()) -> Backbone:
    """Load the checkpoint of a backbone card, spread over the GPUs where there are any.

    Args:
        card: ``repo`` and ``revision`` (or ``path``), ``dtype``, ``template``, ``system_prompt``.
        files: files of a local checkpoint, whose folder is loaded in place of the card's source.

    Raises:
        StudyError: unknown architecture, no safetensors, no tokenizer, no chat template, or a failure of the Hub.
    """
    if files or "path" in card:
        folder = Path(files[0]).parent if files else Path(card["path"])
        return _open(str(folder), folder, card)
    place = Place(f"backbone {card['repo']}", card["repo"], card.get("revision") or "main", "model")
    folder = fetch_checkpoint(place, accept=lambda folder: _family_in(place.repo, folder))
    return replace(_open(place.repo, folder, card), commit=folder.name)


def _open(where: str, folder: Path, card: dict) -> Backbone:
    """The backbone whose files lie in ``folder``; transformers is given no other place to look."""
    family = _family_in(where, folder)
    if not any((folder / name).is_file() for name in weight_files(folder)):
        raise StudyError(
            explain(
                f"backbone {where}",
                "no safetensors weights",
                "model.safetensors, or an index of its parts (pickled weights can run code and are never loaded)",
                "another revision or copy with safetensors weights",
            )
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, card.get("dtype", "float32")),
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=family.attention_implementation,
            device_map="auto" if torch.cuda.is_available() else None,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise StudyError(
            explain(
                f"backbone {where}",
                _first_line(error),
                "a checkpoint with config, tokenizer and safetensors weights",
                "another revision, or a `path` with complete files",
            )
        ) from None
    if any(parameter.is_meta for parameter in model.parameters()):
        raise StudyError(
            explain(
                f"backbone {where}",
                "weights that do not fit on the available GPUs",
                "enough GPU memory for all weights, because offloaded weights cannot be scored",
                "more GPUs (`set-resources: score: gpu=...`), a smaller dtype, or the CPU (`gpu=0`)",
            )
        )
    return wrap_backbone(model, tokenizer, card, where)


def wrap_backbone(model: nn.Module, tokenizer, card: dict, where: str = "backbone") -> Backbone:
    """Make a `Backbone` from a model in memory: freeze it, set evaluation mode and check the template."""
    template = card.get("template", "native")
    if template not in TEMPLATES:
        raise StudyError(unknown(f"backbone {where}", "template", template, TEMPLATES))
    if template == "native" and not tokenizer.chat_template:
        raise StudyError(
            explain(
                f"backbone {where}",
                "a tokenizer without a chat template",
                "a chat template for `template: native`",
                "`template: alpaca` or `template: raw` in the backbone's card",
            )
        )
    family = find_family(where, model.config.model_type)
    model.eval().requires_grad_(False)
    return Backbone(model, tokenizer, family, where, template, card.get("system_prompt"))


def _family_in(where: str, folder: Path) -> Family:
    """The family of the checkpoint in ``folder``, from its config.json alone."""
    path = folder / "config.json"
    if not path.is_file():
        raise StudyError(explain(f"backbone {where}", "no config.json", "a transformers checkpoint"))
    config = json.loads(path.read_text(encoding="utf-8"))
    model_type = config.get("model_type", "none")
    # A checkpoint of a known family may include code (Phi-3 does); transformers' own implementation is used instead.
    if "auto_map" in config and family_of(model_type) is None:
        raise StudyError(
            explain(
                f"backbone {where}: config.json",
                f"model_type '{model_type}', whose code is part of the checkpoint",
                "an architecture built into transformers, because code from a checkpoint is never run",
                f"a checkpoint of a known family: {', '.join(sorted(families()))}",
            )
        )
    return find_family(where, model_type)


def find_family(where: str, model_type: str) -> Family:
    """The family for a ``model_type`` of transformers.

    Raises:
        StudyError: no family has this ``model_type``.
    """
    family = family_of(model_type)
    if family is None:
        known = sorted(kind for f in families().values() for kind in f.layers)
        raise StudyError(unknown(f"backbone {where}: config.json", "model_type", model_type, known))
    return family


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}" if str(error) else "an error"
