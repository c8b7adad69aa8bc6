"""Read a LoRA adapter in peft's format as factors A and B at the addresses of a backbone.

A scored linear layer W (out, in) with an adapter computes ``W x + scale * B (A x)``, with A (r, in), B (out, r)
and ``scale = alpha / r``. Hooks add the adapter, in float32 as in peft, and are removed at the end of the block; the
backbone's own modules and weights are never changed.

Addresses: ``layers.3.q.A`` and ``layers.3.q.B``. If q, k and v are stored fused (Phi-3), they share one adapter: B is
split by rows like the weight (q.B, k.B, v.B), and A has the address of the first projection (q.A).
"""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone, ScoredLinear, attached
from safety_regions.study.adapters import ADAPTER_FILES, CONFIG, WEIGHTS
from safety_regions.study.small_files import read_object

# Settings of peft that change what the layer computes; an adapter that uses one of them is rejected.
UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
)


class Lora(NamedTuple):
    """The adapter of one scored linear layer, in float32 on the layer's device."""

    linear: ScoredLinear
    a: Tensor  # (r, in)
    b: Tensor  # (out, r)
    scale: float

    @property
    def address(self) -> str:
        """The address of A."""
        return f"{self.linear.slices[0].address}.A"

    def parts(self) -> Iterator[tuple[str, Tensor]]:
        """(address, rows of B) of every projection that the layer stores; one unless fused."""
        for address, start, stop in self.linear.slices:
            yield f"{address}.B", self.b[start:stop]


Adapter = tuple[Lora, ...]


def read_adapter(backbone: Backbone, directory: str | Path) -> Adapter:
    """Read the adapter in a peft directory; one `Lora` per layer, in the order of ``backbone.linears``.

    Layers without an adapter are left out; the log says how many have one.

    Raises:
        StudyError: there is no LoRA adapter, or it has unsupported settings, does not match the backbone's layers or
            shapes, is untrained (B is zero), or contains values that are not finite.
    """
    scaling, tensors = _read(Path(directory))
    names = {id(module): name for name, module in backbone.model.named_modules()}
    adapter, known = [], set()
    for linear in backbone.linears:
        keys = [f"base_model.model.{names[id(linear.module)]}.lora_{x}.weight" for x in "AB"]
        known.update(keys)
        if keys[0] in tensors and keys[1] in tensors:
            a, b = (tensors.pop(key).to(linear.module.weight.device).float() for key in keys)
            adapter.append(Lora(linear, a, b, scaling["alpha"] / scaling["root"](len(a))))
    if tensors or not adapter:
        expected = f"factors of linear layers in the decoder blocks of {backbone.source}"
        raise StudyError(explain(directory, *_unmatched(sorted(tensors), known, expected)))
    for lora in adapter:
        _check(directory, lora)
    print(f"adapter of '{scaling['base']}': {len(adapter)} of {len(backbone.linears)} linear layers")
    return tuple(adapter)


def _unmatched(names: Sequence[str], known: Collection[str], expected: str) -> tuple[str, ...]:
    """What is found in place of factors, what is expected, and perhaps a hint.

    Args:
        names: tensors that belong to no pair of factors.
        known: names of all factors that the backbone can have.
        expected: the general answer.
    """
    halves = [name for name in names if name in known]
    labelled = [name for name in names if re.search(r"\.lora_[AB]\.(?!weight$)[^.]+\.weight$", name)]
    if halves:
        return (
            f"one factor without the other in {len(halves)} layers, e.g. {halves[0]}",
            "A and B of each layer",
        )
    if labelled:
        hint = "`save_pretrained` of peft, which leaves it out"
        return f"the name of an adapter in the keys, e.g. {labelled[0]}", "...lora_A.weight", hint
    if names:
        return f"{len(names)} tensors of other layers, e.g. {names[0]}", expected
    return "no factors A and B", expected


def _read(directory: Path) -> tuple[dict, dict[str, Tensor]]:
    """Alpha, the function of the rank that divides it, and the base model's name; and the file's tensors by name."""
    try:
        tensors = load_file(directory / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise StudyError(
            explain(
                directory,
                f"an unreadable adapter ({type(error).__name__})",
                " and ".join(ADAPTER_FILES),
            )
        ) from None
    config = read_object(directory / CONFIG)
    used = [key for key in UNSUPPORTED if config.get(key)]
    used += [
        f"{k} {config.get(k)}" for k, v in (("peft_type", "LORA"), ("bias", "none")) if config.get(k) != v
    ]
    if used:
        raise StudyError(
            explain(directory / CONFIG, ", ".join(used), "plain LoRA (factors A and B, no bias)")
        )
    if not isinstance(config.get("lora_alpha"), int | float):
        raise StudyError(
            explain(directory / CONFIG, "no number `lora_alpha`", "the factor of the product B A")
        )
    root = math.sqrt if config.get("use_rslora") else float
    base = config.get("base_model_name_or_path")
    return {"alpha": config["lora_alpha"], "root": root, "base": base}, tensors


def _check(directory: str | Path, lora: Lora) -> None:
    weight, (a, b) = lora.linear.module.weight, (lora.a, lora.b)
    where = f"{directory}: {lora.address}"
    if (b.shape[0], a.shape[1]) != weight.shape or a.shape[0] != b.shape[1]:
        shapes = f"A {tuple(a.shape)} and B {tuple(b.shape)}"
        raise StudyError(explain(where, shapes, f"(r, in) and (out, r) for a weight {tuple(weight.shape)}"))
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise StudyError(explain(where, "values that are not finite", "finite factors"))
    if not bool(b.any()):
        raise StudyError(explain(where, "B = 0, an adapter before its first step", "a trained adapter"))


def amplification(form: str, beta: float) -> float:
    """The factor that multiplies the product B A for a form of amplification.

    product (Yi et al. 2024, arXiv 2412.12497): W_e = (1 + beta) W_a - beta W_0 = W_0 + (1 + beta) scale B A.
    factors (released code, xinykou/NLSR src/expo-lora.py 80): A and B are each multiplied by 2 beta.
    none: the adapter is not amplified.
    """
    return {"none": 1.0, "product": 1 + beta, "factors": (2 * beta) ** 2}[form]


@contextmanager
def added(adapter: Sequence[Lora], factor: float = 1.0) -> Iterator[None]:
    """Apply the adapter to the backbone inside the block, with its product B A multiplied by ``factor``."""

    def hook_of(lora: Lora):
        def hook(_module, args, output):
            low = args[0].to(lora.a.dtype) @ lora.a.T @ lora.b.T
            return (output + factor * lora.scale * low).to(output.dtype)

        return lora.linear.module.register_forward_hook(hook)

    with attached([hook_of(lora) for lora in adapter]):
        yield
