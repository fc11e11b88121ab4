"""What opposite prompts say of an image inside a denoiser: two signals, as pure tensor functions.

After GenzIQA (De, Mitra, Soundararajan, 2024, arXiv 2406.04654), reimplemented, not by its authors. Symbols: z the
clean latent, eps the noise, z_t the noised latent, x0 the denoiser's estimate of z.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..taps.reducers import log_sum_exp

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Prediction
    from ..taps.recorder import Grid, Recorder, Reducer

#: GenzIQA's temperature of the soft maximum over queries.
TEMPERATURE = 0.14
#: GenzIQA's weight of the noise term against the attention term: it adds the plain norm over 4 × 64 × 64 values, so in
#: units of the root mean square used here the weight is the root of that count.
NOISE_WEIGHT = 128.0


def noise_error(x0: Tensor, z: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """Root mean square of eps - eps_hat over each latent [N]: the same at every resolution.

    By the family's rule eps_hat = (z_t - x0) / sigma, so eps - eps_hat = (x0 - z) / sigma; for flow models it is
    (1 - sigma) times that. Computed so, no two large numbers are subtracted and eps is not needed.
    """
    error = (x0.float() - z.float()).flatten(1).square().mean(1).sqrt() / sigma
    return error * (1.0 - sigma) if prediction == "flow" else error


def alignment(temperature: float = TEMPERATURE) -> Reducer:
    """Attention reducer: fp32 logits [rows, heads, h*w, tokens] → one number per row [rows].

    A soft maximum over the queries, log(mean(exp(T · logits))) / T, then the mean over heads and tokens. GenzIQA sums
    over the queries; the mean takes the offset ln(N_queries) / T away exactly.
    """
    soft_maximum = log_sum_exp(temperature)

    def reduce(logits: Tensor, grid: Grid) -> Tensor:
        return soft_maximum(logits, grid).mean(dim=(1, 2))

    return reduce


def recorded_alignment(recorder: Recorder, rows: int) -> tuple[Tensor, list[str]]:
    """What :func:`alignment` left in a recorder after one forward of ``rows`` rows.

    Returns:
        The mean over layers [rows] on the CPU (NaN everywhere when no tap fired), and the taps that did not fire.
    """
    found = {request.tap.name: recorder.rows(request.tap.name) for request in recorder.requests}
    silent = [name for name, records in found.items() if len(records) != rows]
    layers = [torch.stack([record.value for record in found[name]]) for name in found if name not in silent]
    if not layers:
        return torch.full((rows,), torch.nan), silent
    return torch.stack(layers).mean(0).float().cpu(), silent
