"""Ask a judge how harmful generated answers are: a language model that was trained to tell, from its first token.

A judge reads a prompt and an answer, in its own chat template or in the text of its card, and says one of a few words.
The value of an answer is the mean of the words' values, weighted by the probabilities of their first tokens. With the
values 0 and 1 it is the probability of the harmful word among the two; StrongREJECT grades in five steps (Souly et al.
2024, arXiv 2402.10260, ``strongreject_finetuned`` of its released code).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from safety_regions.errors import StudyError, explain
from safety_regions.model import lora
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample, batches
from safety_regions.model.halving import halving
from safety_regions.model.hub import Place, fetch_file
from safety_regions.model.loading import load_backbone
from safety_regions.study.adapters import ADAPTER_FILES


def load_judge(card: dict, rules: Mapping, files: Sequence[str | Path], batch_size: int) -> "Judge":
    """Load a judge.

    Args:
        card, files: see `load_backbone`. With a template of its own, the checkpoint needs no chat template.
        rules, batch_size: see `Judge`.
    """
    plain = {} if rules["template"] is None else {"template": "raw", "system_prompt": None}
    return Judge(load_backbone(card | plain, files), rules, batch_size)


class Judge:
    """A judge, ready to read answers.

    Args:
        backbone: the model; unchanged.
        rules: the section ``judge`` of its card: ``template``, ``lead``, ``values``, ``longest``, ``adapter``.
        batch_size: answers per pass; halved after an out-of-memory error.

    Raises:
        StudyError: two words with different values begin with the same token, or the adapter cannot be read.
    """

    def __init__(self, backbone: Backbone, rules: Mapping, batch_size: int) -> None:
        self.backbone, self.rules, self.batch_size = backbone, rules, batch_size
        values: dict[int, float] = {}
        for word, value in rules["values"].items():
            first = backbone.tokenizer(word, add_special_tokens=False)["input_ids"][0]
            if values.setdefault(first, value) != value:
                found = f"'{word}', which begins with the same token as a word with another value"
                raise StudyError(
                    explain(f"judge {backbone.source}", found, "words with different first tokens")
                )
        self._tokens = list(values)
        self._values = torch.tensor([values[token] for token in self._tokens], dtype=torch.float32)
        source = rules.get("adapter")
        self._folder = fetched(source) if source else None
        self._adapter = lora.read_adapter(backbone, self._folder) if self._folder else ()

    @property
    def metadata(self) -> dict:
        """Metadata of its tables: source and commit of the judge, its rules, and its adapter (commit or folder)."""
        return {
            "judge_source": self.backbone.source,
            "judge_revision": self.backbone.commit,
            "judge_rules": dict(self.rules),
            **({"judge_adapter": self._folder.name} if self._folder else {}),
        }

    def values(self, answers: Sequence[tuple[str, str, str]]) -> dict[str, float]:
        """The value of each answer.

        Args:
            answers: (key, prompt, answer).

        Returns:
            key -> value (0-1).
        """
        samples = []
        for key, prompt, answer in answers:
            ids = self._ids(prompt, self._cut(answer))
            samples.append(Sample(key, [*ids, 0], len(ids)))  # only the prediction of the last token is read
        with lora.added(self._adapter), torch.inference_mode():
            found, self.batch_size = halving(self.batch_size, lambda size: dict(self._judged(samples, size)))
        return found

    def _cut(self, answer: str) -> str:
        ids = self.backbone.tokenizer(answer, add_special_tokens=False)["input_ids"]
        longest = self.rules["longest"]
        return answer if len(ids) <= longest else self.backbone.tokenizer.decode(ids[:longest])

    def _ids(self, prompt: str, answer: str) -> list[int]:
        words = {
            key: self.backbone.control.marked(text) for key, text in (("prompt", prompt), ("answer", answer))
        }
        template = self.rules["template"]
        if template is None:
            text = self.backbone.render(words["prompt"], words["answer"])
        else:
            text = re.sub(r"\{(prompt|answer)\}", lambda place: words[place[1]], template)
        return self.backbone.text_ids(text + self.rules["lead"])

    def _judged(self, samples: Sequence[Sample], size: int) -> Iterator[tuple[str, float]]:
        for batch in batches(samples, size, self.backbone.rope_switch):
            on = batch.to(self.backbone.device)
            logits = self.backbone.logits(on.input_ids, on.attention_mask, on.target_mask)
            chances = logits[:, self._tokens].float().softmax(dim=-1).cpu()
            yield from zip(batch.prompt_ids, (chances @ self._values).tolist(), strict=True)


def fetched(source: Mapping[str, str]) -> Path:
    """The folder of an adapter: its ``path``, or one named after its commit for a ``repo`` on the Hub."""
    if "path" in source:
        return Path(source["path"])
    weights, config = ADAPTER_FILES
    place = Place(f"adapter {source['repo']}", source["repo"], source.get("revision", "main"), "model")
    commit = fetch_file(place, config).parent.name
    return fetch_file(place._replace(revision=commit), weights).parent
