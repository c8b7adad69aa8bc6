"""Is SNIP faster with one Triton kernel that adds absolute gradients to the sums and never writes a gradient?

`safety_regions.methods.snip.AbsoluteGradients` writes each sample's gradient of a matrix (in the weights' dtype), reads
it back and adds its absolute values to the sums. In this kernel a tile of the matrix stays in registers over all
samples of a batch: gradients are never rounded to the weights' dtype, and sums are read and written once per batch.
torch's builds for GPUs include Triton.

This kernel has never run on a GPU. tests/test_bench.py runs it at toy sizes in Triton's interpreter on the CPU, if
Triton is installed and TRITON_INTERPRET is 1; otherwise the benchmark skips it.
"""

import triton
import triton.language as tl
from torch import Tensor

from safety_regions.methods.snip import AbsoluteGradients
from safety_regions.model.backbone import ScoredLinear

TILE, TOKENS, WARPS = 128, 32, 8


@triton.jit
def _add(
    x, delta, sums, samples, tokens, n_in, n_out, TILE: tl.constexpr, TOKENS: tl.constexpr
):  # fmt: skip
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, TILE), tl.float32)
    for sample in range(samples):
        gradient = tl.zeros((TILE, TILE), tl.float32)
        for start in range(0, tokens, TOKENS):
            token = start + tl.arange(0, TOKENS)
            place = (sample * tokens + token).to(tl.int64)
            real = token < tokens
            backward = tl.load(
                delta + place[None, :] * n_out + rows[:, None],
                mask=real[None, :] & (rows < n_out)[:, None],
                other=0.0,
            )
            forward = tl.load(
                x + place[:, None] * n_in + columns[None, :],
                mask=real[:, None] & (columns < n_in)[None, :],
                other=0.0,
            )
            gradient = tl.dot(backward, forward, gradient, input_precision="ieee")
        total += tl.abs(gradient)
    where = sums + rows.to(tl.int64)[:, None] * n_in + columns[None, :]
    inside = (rows < n_out)[:, None] & (columns < n_in)[None, :]
    tl.store(where, tl.load(where, mask=inside) + total, mask=inside)


class FusedGradients(AbsoluteGradients):
    """Sums the absolute gradient of each weight over samples, one batch per kernel call."""

    def add(self, linear: ScoredLinear, x: Tensor, delta: Tensor) -> None:
        sums = self.sums[id(linear.module)]
        grid = tuple(triton.cdiv(side, TILE) for side in sums.shape)
        samples, tokens, n_in = x.shape
        _add[grid](
            x.contiguous(), delta.contiguous(), sums, samples, tokens, n_in, len(sums), TILE, TOKENS,
            num_warps=WARPS,
        )  # fmt: skip
