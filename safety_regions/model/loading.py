"""Open a checkpoint: safetensors only, no code from the checkpoint, and every tensor of the model from its files.

transformers fills tensors that a checkpoint lacks with random numbers, and ignores those that it does not know; it only
logs both. Scores of such a model would be noise that looks like a result, so both are errors here.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.families import Family, families, family_of
from safety_regions.model.backbone import Backbone
from safety_regions.model.before import overwrite_weights
from safety_regions.model.free_memory import CPU, free_bytes
from safety_regions.model.generate import end_ids
from safety_regions.model.hub import Place, fetch_checkpoint
from safety_regions.model.prompt_format import DATE, TEMPLATES, PromptFormat
from safety_regions.model.scratch import park
from safety_regions.study.checkpoints import GGUF_FILE, SMALL_FILES, weight_files
from safety_regions.study.small_files import read_object

PROBE = "A short question?"
FLOATS = ("F64", "F32", "F16", "BF16")
FOR_WEIGHTS = 0.8
"""Fraction of the free memory that the weights of a base may take; the rest is for the passes."""


def load_backbone(card: dict, files: Sequence[str | Path] = (), on_gpus: bool = True) -> Backbone:
    """Load the checkpoint of a backbone card, spread over the GPUs where there are any.

    Args:
        card: ``repo`` and ``revision`` (or ``path``), ``dtype``, ``template``, ``system_prompt``, ``date``,
            ``template_options``, ``temperature``.
        files: files of a local checkpoint, whose folder is loaded in place of the card's source.
        on_gpus: False: load it on the CPU, whether or not there are GPUs.

    Raises:
        StudyError: unknown architecture, no safetensors, tensors that are missing, unknown or quantised, no tokenizer,
            a chat template that is missing or fails, or a failure of the Hub.
    """
    if files or "path" in card:
        folder = Path(files[0]).parent if files else Path(card["path"])
        return _open(str(folder), folder, card, on_gpus)
    place = Place(f"backbone {card['repo']}", card["repo"], card.get("revision") or "main", "model")
    folder = fetch_checkpoint(place, accept=lambda folder: _family_in(place.repo, folder))
    return replace(_open(place.repo, folder, card, on_gpus), commit=folder.name)


def load_with_base(
    card: dict,
    files: Sequence[str | Path] = (),
    base: Sequence[str | Path] = (),
    before: Sequence[str | Path] = (),
    memory: int | None = None,
    scratch: Path | None = None,
) -> Backbone:
    """`load_backbone`, with its base: that which the card names as ``base_card``, or the first phase of an organism.

    A base that does not fit on the GPUs beside the backbone is on the CPU. If the host's memory is too small, the
    weights of the models on the CPU are in files (`park`).

    Args:
        base: files of the base, if it is a local checkpoint.
        before: the file of an organism's weights before alignment (see `before.copied_weights`); empty for none.
        memory: maximum host memory of the job, bytes; None: all free memory.
        scratch: folder for weights that do not fit in memory; None: the default temporary directory.
    """
    backbone = load_backbone(card, files)
    if not before and "base_card" not in card:
        return backbone
    own = {parameter.device for parameter in backbone.model.parameters()}
    on_gpus = own != {CPU} and _fits_beside(backbone, own, memory)
    parked = not on_gpus and not _fits_beside(backbone, {CPU}, memory)
    if parked:
        print("limited memory: the weights of two models do not fit, and are read from files")
        if own == {CPU}:
            park(backbone.model, scratch)
    other = _load_base(card, files, base, before, on_gpus)
    if parked:
        park(other.model, scratch)
    return replace(backbone, base=other)


def _fits_beside(backbone: Backbone, devices: Collection[torch.device], memory: int | None) -> bool:
    """Whether a second model of this size fits on the devices, with a fifth of what is free left for its passes."""
    size = sum(parameter.nbytes for parameter in backbone.model.parameters())
    return size <= FOR_WEIGHTS * sum(free_bytes(device, memory) for device in devices)


def _load_base(
    card: dict, files: Sequence[str | Path], base: Sequence[str | Path], before: Sequence[str | Path], on_gpus: bool
) -> Backbone:  # fmt: skip
    if before:
        first = replace(load_backbone(card, files, on_gpus), source=str(before[0]))
        overwrite_weights(first, before[0])
        return first
    # The base reads the tokens of the backbone, and many base checkpoints have no chat template.
    plain = {"template": "raw", "system_prompt": None, "dtype": card.get("dtype", "float32")}
    return load_backbone(card["base_card"] | plain, base, on_gpus)


def _open(where: str, folder: Path, card: dict, on_gpus: bool) -> Backbone:
    """The backbone whose files lie in ``folder``; transformers is given no other place to look."""
    family = _family_in(where, folder)
    _check_files(where, folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, card.get("dtype", "float32")),
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=family.attention_implementation,
            device_map="auto" if on_gpus and torch.cuda.is_available() else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # only to name the tensors: `check_tensors` refuses them
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # transformers and tokenizers raise nearly every class for a damaged file
        raise StudyError(
            explain(
                f"backbone {where}",
                told(error),
                "a checkpoint with config, tokenizer and safetensors weights",
                "another revision, or a `path` with complete files"
                if (folder / "tokenizer.json").is_file() or not (folder / "tokenizer.model").is_file()
                else "a tokenizer.json: where sentencepiece and protobuf are installed, load the tokenizer of this "
                "folder with AutoTokenizer and save it there with save_pretrained",
            )
        ) from None
    check_tensors(where, report)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise StudyError(
            explain(
                f"backbone {where}",
                "weights that do not fit on the available GPUs",
                "enough GPU memory for all weights, because offloaded weights cannot be scored",
                "more GPUs (`set-resources: score: gpu=...`), a smaller dtype, or the CPU (`gpu=0`)",
            )
        )
    facts = folder / GGUF_FILE
    return replace(
        wrap_backbone(model, tokenizer, card, where), gguf=read_object(facts) if facts.is_file() else None
    )


def _check_files(where: str, folder: Path) -> None:
    """Raise StudyError unless the small files are whole and there is one set of safetensors weights, not quantised."""
    for name in SMALL_FILES:  # transformers goes on without a damaged generation_config.json
        if (folder / name).is_file():
            read_object(folder / name)
    names = weight_files(folder)
    present = [folder / name for name in names if (folder / name).is_file()]
    if not present:
        raise StudyError(
            explain(
                f"backbone {where}",
                "no safetensors weights",
                "model.safetensors, or an index of its parts (pickled weights can run code and are never loaded)",
                "another revision or copy with safetensors weights",
            )
        )
    if "model.safetensors" not in names and (folder / "model.safetensors").is_file():
        raise StudyError(
            explain(
                f"backbone {where}",
                f"two sets of weights: model.safetensors, and an index that lists {len(names)} other files",
                "one",
                "deleting the set that is out of date",
            )
        )
    quantised = _quantised(folder, present)
    if quantised:
        raise StudyError(
            explain(
                f"backbone {where}",
                quantised,
                "weights in float32, bfloat16 or float16, because a method scores the weights themselves",
                "the checkpoint from which this one was quantised",
            )
        )


def _quantised(folder: Path, files: Sequence[Path]) -> str | None:
    """What shows that the weights are quantised, or None."""
    config = read_object(folder / "config.json")
    settings = config.get("quantization_config") or (config.get("text_config") or {}).get(
        "quantization_config"
    )
    if settings:
        method = settings.get("quant_method") if isinstance(settings, dict) else settings
        return f"a quantised checkpoint ({method or 'unknown method'})"
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
        except Exception:  # a damaged file: loading it says what is wrong
            continue
        for name, kind in kinds.items():
            if kind not in FLOATS and name.endswith("weight"):
                return f"quantised weights ({name} in {file.name} is {kind})"
    return None


def check_tensors(where: str, report: dict) -> None:
    """Raise StudyError if tensors of the model are not in the checkpoint, the other way round, or have other sizes."""
    sizes = sorted((name, tuple(found), tuple(asked)) for name, found, asked in report["mismatched_keys"])
    if sizes:
        name, found, asked = sizes[0]
        raise StudyError(
            explain(
                f"backbone {where}",
                f"{len(sizes)} tensors of another size than config.json says, e.g. {name} {found}",
                str(asked),
                "a complete copy whose config.json belongs to its weights",
            )
        )
    missing, surplus = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if not missing and not surplus:
        return
    found = [
        f"{len(names)} tensors {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in ((missing, "of the model missing"), (surplus, "that the model does not have"))
        if names
    ]
    raise StudyError(
        explain(
            f"backbone {where}",
            " and ".join(found),
            "exactly the model's tensors, because missing ones would be random numbers",
            _likely_cause(surplus) or "a complete copy whose config.json belongs to its weights",
        )
    )


CAUSES = {
    r"^_orig_mod\.": "saving the model before torch.compile wraps it",
    r"^module\.": "saving the model inside the DataParallel wrapper (`model.module`)",
    r"^base_model\.|\.base_layer\.|\.lora_": "merging the adapter (`merge_and_unload` of peft) before saving",
    r"_scale(_inv)?$|\.(scales|absmax|qzeros)$": "the checkpoint from which this one was quantised",
}
"""Pattern of a surplus tensor's name -> what to try."""


def _likely_cause(surplus: Sequence[str]) -> str | None:
    """What the names of surplus tensors suggest."""
    return next(
        (hint for sign, hint in CAUSES.items() if any(re.search(sign, name) for name in surplus)), None
    )


def wrap_backbone(model: nn.Module, tokenizer, card: dict, where: str = "backbone") -> Backbone:
    """Make a `Backbone` from a model in memory: freeze it, set evaluation mode, and check how it sees a prompt.

    Raises:
        StudyError: no chat template, or one that fails or drops the prompt or the system prompt; a tokenizer that
            loses the text, or whose ids the embedding does not have.
    """
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
    options = {**family.template_options, **(card.get("template_options") or {})}
    shape = PromptFormat(template, card.get("system_prompt"), card.get("date") or DATE, options)
    model.eval().requires_grad_(False)
    backbone = Backbone(model, tokenizer, family, where, shape, temperature=card.get("temperature") or 0.0)
    _check_prompt(backbone)
    return backbone


def _check_prompt(backbone: Backbone) -> None:
    """Raise StudyError unless a probe passes through template and tokenizer."""
    where, system = f"backbone {backbone.source}", backbone.format.system_prompt
    try:
        frame = backbone.format.render(backbone.tokenizer, PROBE)
    except Exception as error:  # a template is a program of the checkpoint's author
        raise StudyError(
            explain(
                f"{where}: chat template",
                told(error),
                "a template that takes messages of plain text",
                "`system_prompt: null`, `template_options`, or `template: raw` or `alpaca` in the backbone's card",
            )
        ) from None
    if backbone.format.asks_for_today(backbone.tokenizer):
        raise StudyError(
            explain(
                f"{where}: chat template",
                "a date that changes every day",
                "a call strftime_now('...') with a fixed format, which is replaced by the card's `date`",
                "`template: raw` or `template: alpaca` in the backbone's card",
            )
        )
    if PROBE not in frame:
        raise StudyError(
            explain(
                f"{where}: chat template",
                "a text that does not hold the prompt",
                "a template that takes messages of plain text",
                "`template: raw` or `template: alpaca` in the backbone's card",
            )
        )
    if system and system.strip() not in frame:
        raise StudyError(
            explain(
                f"{where}: template {backbone.format.template}",
                "a text that does not hold the system prompt",
                "a template with a place for it",
                "`system_prompt: null` in the backbone's card",
            )
        )
    if not backbone.tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
        raise StudyError(
            explain(f"{where}: tokenizer", "no token for a short text", hint="complete tokenizer files")
        )
    backbone.prompt_ids(PROBE)
    strange = [end for end in end_ids(backbone) if not isinstance(end, int)]
    if strange:
        raise StudyError(
            explain(
                where,
                f"an eos_token_id that is no number ('{strange[0]}')",
                "numbers",
                "a repaired generation_config.json",
            )
        )


def _family_in(where: str, folder: Path) -> Family:
    """The family of the checkpoint in ``folder``, from its config.json alone."""
    path = folder / "config.json"
    if not path.is_file():
        raise StudyError(explain(f"backbone {where}", "no config.json", "a transformers checkpoint"))
    config = read_object(path)
    model_type = str(config.get("model_type", "none"))
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


def told(error: Exception) -> str:
    """The class of an error of another library and the start of its message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200] or 'no message'}"
