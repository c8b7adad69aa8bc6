"""Find the prompts that a trained model refuses, from its answers."""

from collections.abc import Sequence

from safety_regions.model.backbone import Backbone
from safety_regions.model.generate import answer_prompts
from safety_regions.model.refusal import is_refusal


def refuses(backbone: Backbone, prompts: Sequence[str], answer_tokens: int, batch_size: int) -> list[bool]:
    """Whether each prompt is refused, by an answer of at most ``answer_tokens``; ``batch_size`` prompts per pass."""
    answers = answer_prompts(backbone, prompts, max_new_tokens=answer_tokens, batch_size=batch_size)
    return [is_refusal(answer.text) for answer in answers]
