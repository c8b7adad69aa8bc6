"""A process that loads from the Hub as a job does: a card per line on stdin, what came of it per line on stdout.

Run as a module, so that HF_ENDPOINT and the other variables are there before anything of the Hub is imported.
"""

import hashlib
import json
import os
import sys
import time
import traceback

_slept: list[float] = []
_sleep = time.sleep


def _doze(seconds: float) -> None:
    """Sleep without the waiting: the seconds asked for are noted."""
    _slept.append(seconds)
    _sleep(min(seconds, 0.01))


def backbone(card: dict) -> dict:
    from safety_regions.model.loading import load_backbone

    found = load_backbone(card)
    weights = hashlib.sha256()
    for _, weight in found.weights():
        weights.update(weight.numpy().tobytes())
    return {**found.metadata, "weights": weights.hexdigest()}


def dataset(card: dict) -> dict:
    from pathlib import Path

    from safety_regions.prompts.reading import read_prompts

    options = {"data_dir": None, "catalog_dir": Path("nowhere"), "seed": 0, "evaluate_fraction": 0.2}
    _, metadata = read_prompts("birds", card, **options)
    return {**metadata["source"], "prompts": metadata["prompts"], "sha256": metadata["prompts_sha256"]}


def gguf(card: dict) -> dict:
    from pathlib import Path

    from safety_regions.model.gguf_source import fetch_gguf

    return {"sha256": hashlib.sha256(fetch_gguf(card, "birds", Path()).read_bytes()).hexdigest()}


def _answer(what: str, card: dict) -> dict:
    _slept.clear()
    try:
        answer = {"backbone": backbone, "dataset": dataset, "gguf": gguf}[what](card)
    except Exception as error:
        traceback.print_exc()
        answer = {"error": type(error).__name__, "message": str(error)}
    return {**answer, "slept": list(_slept)}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print goes to the log, with the errors
    time.sleep = _doze
    for line in sys.stdin:
        print(json.dumps(_answer(**json.loads(line))), file=answers, flush=True)
    os._exit(0)  # nothing is left to be done, and torch takes seconds to leave
