"""Turn the GGUF file of a backbone's card into an ordinary checkpoint."""

from pathlib import Path

from safety_regions.joblog import logged


def convert_gguf(card: dict, backbone: str, output: str | Path) -> None:
    """Write the checkpoint next to ``output``, the file that says what it was made from."""
    from safety_regions.model import gguf_convert

    facts = gguf_convert.convert_gguf(card, Path(output).parent, backbone)
    tensors = ", ".join(f"{number} {kind}" for kind, number in facts["tensors"].items())
    print(f"dequantised {facts['source']} (SHA-256 {facts['sha256']}; tensors: {tensors})")


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        convert_gguf(
            card=snakemake.params.card, backbone=snakemake.wildcards.backbone, output=snakemake.output.facts
        )
