"""What else a changed model can do: tasks of the Language Model Evaluation Harness (lm-eval), an optional library.

The library reads the data, builds the prompts (without a chat template, as its published tasks do) and scores the
answers. One value per document, so that effects are paired as they are for prompts.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from safety_regions.behaviour.measures import Value
from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone
from safety_regions.units.behaviour import TASK

PREFERRED = ("acc_norm", "acc", "exact_match")
"""The metric that is kept of a task that has several; otherwise its first."""


class Tasks:
    """Tasks that can be measured again and again on a model whose weights change.

    Args:
        backbone: the model.
        limits: name of a task -> most documents; None: all.
        folder: of task files of one's own (YAML), which come before those of the library.
        batch_size: requests per forward pass.

    Raises:
        StudyError: the library is missing, or has no single task of a name.
    """

    def __init__(
        self, backbone: Backbone, limits: Mapping[str, int | None], folder: str | Path | None, batch_size: int
    ) -> None:
        if importlib.util.find_spec("lm_eval") is None:
            hint = "`pip install safety-regions[lm-eval]`, or a section without `tasks`"
            raise StudyError(explain("behaviour: tasks", "no library lm-eval", "lm-eval 0.4.13", hint))
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=None if folder is None else str(folder))
        for name in limits:
            if name not in manager.all_subtasks:
                hint = "a name that `lm-eval ls subtasks` shows, or a file in `task_folder`"
                raise StudyError(explain("behaviour: tasks", f"'{name}'", "one task of lm-eval", hint))
        loaded = manager.load(list(limits))["tasks"]
        self._tasks = {name: (loaded[name], limit) for name, limit in limits.items()}
        self._model = HFLM(pretrained=backbone.model, tokenizer=backbone.tokenizer, batch_size=batch_size)

    def measure(self) -> list[Value]:
        """The score of every document; ``task-{name}`` is the measure, and stands in the place of the dataset."""
        from lm_eval import simple_evaluate

        found = []
        for name, (task, limit) in self._tasks.items():
            result = simple_evaluate(self._model, tasks=[task], limit=limit, bootstrap_iters=0)
            scores: dict[str, float] = {}
            for sample in result["samples"][name]:  # one for each filter; the first counts
                metric = next((m for m in PREFERRED if m in sample["metrics"]), sample["metrics"][0])
                scores.setdefault(f"{name}-{sample['doc_id']}", float(sample[metric]))
            found += [Value(document, TASK + name, TASK + name, score) for document, score in scores.items()]
        return found
