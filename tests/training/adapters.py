"""Tests get random adapters in peft's format, and short responses, from here."""

import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
import torch
from peft import LoraConfig, get_peft_model

from safety_regions.formats.contracts import RESPONSES
from safety_regions.formats.parquet import conform
from safety_regions.model.backbone import Backbone


def write_adapter(
    backbone: Backbone, directory: Path, rank: int = 5, seed: int = 0, dtype=torch.float32, **changes
) -> Path:
    """Write a random adapter on all linear layers except the output head, with peft itself; return its directory."""
    settings = {"r": rank, "lora_alpha": 3, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(backbone.model, LoraConfig(**settings | changes))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.1)
                parameter.data = parameter.data.to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(directory, save_embedding_layers=False)
    model.unload()
    return directory


REFUSAL, ANSWER = "I cannot help with that.", "Here you are: number"


def responses_of(dataset: str, refused: list[bool], held_out: int = 2) -> pa.Table:
    """Return responses to meaningless prompts, refused or answered as ``refused`` says; the last ones are held out."""
    n = len(refused)
    frame = pd.DataFrame(
        {
            "prompt_id": [f"{dataset}/{i}" for i in range(n)],
            "dataset": dataset,
            "split": ["identify"] * (n - held_out) + ["evaluate"] * held_out,
            "half": [1 + i % 2 for i in range(n)],
            "prompt": [f"Please {dataset} {i}" for i in range(n)],
            "response": [REFUSAL if r else f"{ANSWER} {i}" for i, r in enumerate(refused)],
            "origin": "backbone",
            "refused": refused,
            "n_tokens": 5,
            "stop": "eos",
        }
    )
    return conform(frame, RESPONSES)
