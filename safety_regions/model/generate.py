"""Answer many prompts with a backbone, greedily or by sampling; the answers do not depend on the batch size.

Prompts are sorted by length, padded on the left, and continued one token at a time until an end-of-sequence
token or the limit. We do not use ``model.generate``, because it merges the checkpoint's ``generation_config`` into
its arguments: a repetition penalty stored there (as in Qwen2-Instruct) would make decoding not greedy.

If the backbone has a temperature, each prompt has its own random numbers, seeded by its tokens. An answer is then a
draw from the model's distribution, but the same prompt always gets the same answer.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from safety_regions.errors import StudyError, explain
from safety_regions.joblog import Progress
from safety_regions.model.backbone import Backbone
from safety_regions.model.halving import in_batches


class Answer(NamedTuple):
    """One answer: text without special tokens, number of tokens before the end token, and why it stopped."""

    text: str
    n_tokens: int
    stop: str  # "eos" or "length"


def answer_prompts(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    prompt_ids: Sequence[str] | None = None,
) -> list[Answer]:
    """Answer every prompt, in the order of the prompts; see `Backbone.temperature`.

    In fp32 the batch size changes logits only by rounding errors, which are smaller than the margin between two
    tokens. In bf16 rounding sometimes changes a token, as in any batched inference.

    Args:
        backbone: a checkpoint in evaluation mode.
        prompts: texts as the user writes them, without a template.
        max_new_tokens: number of tokens after which an unfinished answer is cut (``stop == "length"``).
        batch_size: prompts per forward pass; halved after an out-of-memory error.
        prompt_ids: what errors call the prompts; without them, their indices.

    Raises:
        StudyError: prompts have no tokens or are too long for ``max_new_tokens`` in the context; lists them.
    """
    encoded = [backbone.prompt_ids(prompt) for prompt in prompts]
    names = [f"index {index}" for index in range(len(prompts))] if prompt_ids is None else prompt_ids
    _check_lengths(backbone, zip(names, map(len, encoded), strict=True), max_new_tokens)
    groups = _by_frequencies(encoded, max_new_tokens, backbone.rope_switch)
    answers: dict[int, Answer] = {}

    def continued(chosen: Sequence[int]) -> list[list[int]]:
        return continue_prompts(backbone, [encoded[index] for index in chosen], max_new_tokens)

    progress = Progress("answering", len(encoded), "prompts")
    for group in groups:
        for chosen, continuations in in_batches(group, batch_size, continued):
            progress.step(len(chosen))
            for index, ids in zip(chosen, continuations, strict=True):
                answers[index] = _answer(backbone, encoded[index], ids)
    return [answers[index] for index in range(len(encoded))]


def _by_frequencies(encoded: Sequence[list[int]], count: int, switch: int | None) -> list[list[int]]:
    """Indices of the prompts that may share a batch, shortest first; see `Backbone.rope_switch` for ``switch``.

    A prompt whose answer of ``count`` tokens passes the switch is alone, since others pass it at another token.
    """
    order = sorted(range(len(encoded)), key=lambda index: (len(encoded[index]), index))
    if switch is None:
        return [order]
    before = [i for i in order if len(encoded[i]) + count <= switch]
    after = [i for i in order if len(encoded[i]) > switch]
    passing = order[len(before) : len(order) - len(after)]
    return [before, *([i] for i in passing), after]


def continue_prompts(backbone: Backbone, batch: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Continue each prompt with the most likely or with sampled tokens, up to and including the first end token.

    Args:
        backbone: a checkpoint in evaluation mode.
        batch: token ids of rendered prompts, of any lengths.
        max_new_tokens: maximum length of a continuation in tokens.
    """
    ends = torch.tensor(sorted(end_ids(backbone)), device=backbone.device)
    steps, finished = [], torch.zeros(len(batch), dtype=torch.bool, device=backbone.device)
    for tokens in _steps(backbone, batch, max_new_tokens):
        steps.append(tokens)
        finished |= torch.isin(tokens, ends)
        if finished.all():
            break
    rows = torch.stack(steps, dim=1).tolist()
    return [_up_to_end(row, set(ends.tolist())) for row in rows]


@torch.inference_mode()
def _steps(backbone: Backbone, batch: Sequence[list[int]], count: int) -> Iterator[Tensor]:
    """Yield the next token of every row, ``count`` times; finished rows continue and are cut by the caller."""
    ids, mask = _pad_left(batch, pad_id(backbone), backbone.device)
    cache, choose = DynamicCache(config=backbone.model.config), _chooser(batch, backbone.temperature)
    positions, whole = _positions(mask), ids
    for _ in range(count):
        output = backbone.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        tokens = choose(output.logits[:, -1]).to(backbone.device)
        yield tokens
        ids, positions = tokens[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(batch), 1)], dim=1)
        whole = torch.cat([whole, ids], dim=1)
        if int(positions.max()) == backbone.rope_switch:  # the stored keys were turned by other frequencies
            ids, positions, cache = whole, _positions(mask), DynamicCache(config=backbone.model.config)


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _chooser(batch: Sequence[list[int]], temperature: float) -> Callable[[Tensor], Tensor]:
    """A function from logits (prompts, vocabulary) to one token per prompt.

    The most likely token at temperature 0, otherwise a draw from softmax(logits / temperature). Draws use the Gumbel
    trick: argmax(logits / temperature - log(e)), with e exponential, has exactly this distribution.
    """
    if not temperature:
        return lambda logits: logits.argmax(dim=-1)
    generators = [torch.Generator().manual_seed(_seed(ids)) for ids in batch]

    def drawn(logits: Tensor) -> Tensor:
        noise = torch.empty(logits.shape)
        for row, generator in zip(noise, generators, strict=True):
            row.exponential_(generator=generator)
        return (logits.float().cpu() / temperature - noise.log()).argmax(dim=-1)

    return drawn


def _seed(ids: Sequence[int]) -> int:
    return int.from_bytes(blake2b(",".join(map(str, ids)).encode(), digest_size=8).digest()) >> 1


def _pad_left(batch: Sequence[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, each (prompts, length of the longest), padded on the left."""
    width = max(map(len, batch))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in batch], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=device)
    return ids, mask


def _up_to_end(row: list[int], ends: set[int]) -> list[int]:
    stop = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
    return row[:stop]


def end_ids(backbone: Backbone) -> set[int]:
    """Every token that ends an answer, from the generation config, the config and the tokenizer.

    Chat checkpoints end a turn with a different token (``<|eot_id|>``) than a document, and list both only in
    the generation config.
    """
    configs = (getattr(backbone.model, "generation_config", None), backbone.model.config, backbone.tokenizer)
    found = (getattr(config, "eos_token_id", None) for config in configs)
    listed = [ids if isinstance(ids, list | tuple) else [ids] for ids in found]
    return {token for ids in listed for token in ids if token is not None}


def pad_id(backbone: Backbone) -> int:
    """A token for padding: the tokenizer's own, or else any token, because padding is masked out."""
    own = backbone.tokenizer.pad_token_id
    return own if own is not None else min(end_ids(backbone), default=0)


def _check_lengths(backbone: Backbone, lengths: Iterable[tuple[str, int]], max_new_tokens: int) -> None:
    """Raise a StudyError if prompts cannot be answered; ``lengths`` are their names and numbers of tokens."""
    context = getattr(backbone.model.config.get_text_config(), "max_position_embeddings", None)
    room = float("inf") if context is None else context - max_new_tokens
    bad = [f"{name} ({length})" for name, length in lengths if not 0 < length <= room]
    if bad:
        raise StudyError(
            explain(
                "prompts",
                f"unusable lengths (tokens): {', '.join(bad[:10])}{', ...' if len(bad) > 10 else ''}",
                f"1 to {room} tokens (context of {context} tokens, minus {max_new_tokens} for the answer)",
                "a filter in the dataset's card, or a smaller max_new_tokens",
            )
        )


def _answer(backbone: Backbone, prompt_ids: list[int], ids: list[int]) -> Answer:
    ended = ids[-1] in end_ids(backbone)
    body = ids[:-1] if ended else ids
    return Answer(_text_after(backbone.tokenizer, prompt_ids, body), len(body), "eos" if ended else "length")


def _text_after(tokenizer, prompt_ids: list[int], ids: list[int]) -> str:
    """The text that ``ids`` add to the prompt; decoded alone, sentencepiece would drop a leading space."""
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    prompt = tokenizer.decode(prompt_ids, **options)
    whole = tokenizer.decode(prompt_ids + ids, **options)
    return whole.removeprefix(prompt) if whole.startswith(prompt) else tokenizer.decode(ids, **options)
