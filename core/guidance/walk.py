"""The loop over noise levels: one object per guided path."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..backbone.schedule import noised, sigma_of_timestep
from ..memory import in_chunks, is_out_of_memory
from ..taps.recorder import Recorder
from .calls import Calls
from .descent import Rows, descend, keep
from .door import make_terms
from .inversion import climb, inverted
from .peak import PeakMemory
from .result import GuidedPath, Watch
from .step import cells_of, ddim, eps_of
from .terms import Term, ordinary
from .tiles import smaller

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone, Conditioning, Prediction
    from ..perceptual.contract import Psi
    from .options import GuidanceOptions

logger = logging.getLogger(__name__)

#: Fresh noise (eta > 0) of timestep t has seed + _FRESH + t: never that of the start.
_FRESH = 10_000
_NOT_FINITE = "the model's output held NaN or infinite values (half precision overflowed: try bf16 or fp32)"
_BROKEN = "the latent holds NaN or infinite values (half precision overflows in some VAEs: try a bf16 or fp32 VAE)"


class Walk:
    """One run of :func:`~.path.guided_path`, whose arguments these are, checked."""

    def __init__(
        self,
        backbone: Backbone,
        clean: Tensor,
        options: GuidanceOptions,
        conditioning: Conditioning,
        recorder: Recorder | None,
        watch: Watch | None,
        keep_z: bool,
        keep_states: bool = False,
    ) -> None:
        self._backbone, self._options, self._conditioning = backbone, options, conditioning
        self._recorder, self._watch = recorder, watch
        self._cut = recorder is not None and not keep_z
        self._keep_states = keep_states
        self._states: list[Tensor] = []
        self._prediction: Prediction = backbone.family.prediction
        self._sigmas = [sigma_of_timestep(t, self._prediction) for t in options.timesteps]
        clean = clean if clean.dtype == torch.float64 else clean.float()
        finite = clean.flatten(1).isfinite().all(1)
        # A broken latent walks as zeros, so that it cannot reach its batch-mates.
        self._clean = keep(finite, clean, torch.zeros_like(clean))
        self._rows = Rows([None] * len(clean))
        self._rows.give_up(~finite, _BROKEN)
        self._calls, self._peak = Calls(), PeakMemory(clean.device)
        self._terms: list[Term] = []
        self._most = options.most_rows
        self._side: int | None = None
        self._cells: Tensor | None = None
        self._done, self._units = 0, 0

    def prepare(self, target: Tensor | None, psi: Psi | None, weight: Tensor | None) -> None:
        """Everything that is computed once: the terms with psi of the picture."""
        guided = len(self._sigmas) - self._cut
        if guided:
            self._terms = make_terms(self._backbone, self._clean, target, self._options, psi, weight, self._calls)
            self._cells = None if weight is None else cells_of(weight, self._clean)
        inverting = len(climb(self._sigmas, self._prediction)) if self._options.start == "inversion" else 0
        self._units = inverting + len(self._sigmas) + guided * len(self._terms)
        self._rows.energies.update({term.name: [] for term in self._terms})

    def run(self) -> GuidedPath:
        """All levels."""
        z: Tensor | None = self._start()
        afters = [*self._sigmas[1:], 0.0]
        for level, (sigma, after) in enumerate(zip(self._sigmas, afters, strict=True)):
            if self._keep_states:
                self._states.append(z)
            if self._cut and after == 0.0:
                self._read_only(z, sigma)
                z = None
                break
            x0, guided = self._estimate(z, sigma)
            eps = eps_of(z, x0, sigma, self._prediction)
            alive = self._rows.alive(0, len(z), z)
            eps = keep(alive, eps, torch.zeros_like(eps))
            noise = self._noise(_FRESH + self._options.timesteps[level]) if self._options.eta else None
            z = ddim(guided, eps, sigma, after, self._prediction, eta=self._options.eta, noise=noise)
        energies = {name: torch.tensor(levels) for name, levels in self._rows.energies.items()}
        peak = self._peak.bytes()
        if peak is not None:
            logger.info("Guidance of %d pictures held at most %.2f GB on the device.", len(self._clean), peak / 1e9)
        reasons, states = tuple(self._rows.reasons), tuple(self._states)
        return GuidedPath(z, energies, self._calls, reasons, tuple(self._sigmas), self._side, peak, states)

    def _start(self) -> Tensor:
        if self._options.start == "inversion":
            return inverted(self._plain_estimate, self._clean, self._sigmas, self._prediction)
        return noised(self._clean, self._noise(0), self._sigmas[0], self._prediction)

    def _noise(self, seed: int) -> Tensor:
        """Noise of one row's shape, the same for every row, so that neither order nor company matters."""
        return self._backbone.noise(self._clean.shape[1:], self._options.seed + seed).to(self._clean)

    def _levels(self, sigma: float, rows: int) -> Tensor:
        return torch.full((rows,), sigma, dtype=self._clean.dtype, device=self._clean.device)

    def _plain_estimate(self, z: Tensor, sigma: float) -> Tensor:
        """Unguided and unrecorded, for the inversion."""
        x0 = self._backbone.denoise(z, self._levels(sigma, len(z)), self._conditioning).to(self._clean)
        self._calls.denoiser += 1
        self._tell(1)
        return self._checked(x0, 0)

    def _read_only(self, z: Tensor, sigma: float) -> None:
        assert self._recorder is not None
        self._backbone.features(z, self._levels(sigma, len(z)), self._conditioning, self._recorder)
        self._calls.denoiser += 1
        self._tell(1)

    def _checked(self, x0: Tensor, first: int) -> Tensor:
        """The clean estimates; a row that is not finite, or was given up, is its input latent from here on."""
        finite = x0.flatten(1).isfinite().all(1)
        self._rows.give_up(~finite, _NOT_FINITE, first)
        last = first + len(x0)
        return keep(self._rows.alive(first, last, x0), x0, self._clean[first:last].to(x0))

    def _estimate(self, z: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """z_t → z0|t and z''."""
        self._rows.next_level()
        if self._terms and self._options.through == "denoiser":
            return self._through_denoiser(z, sigma)
        x0 = self._backbone.denoise(z, self._levels(sigma, len(z)), self._conditioning, self._recorder)
        self._calls.denoiser += 1
        x0 = self._checked(x0.to(self._clean), 0)
        self._tell(1)
        if not self._terms:
            return x0, x0
        guided = torch.empty_like(x0)

        def work(first: int, last: int) -> None:
            guided[first:last] = self._moved(x0, first, last)
            self._tell(0)

        _, self._most = in_chunks(len(z), self._chunk_size(), work)
        self._tell(len(self._terms))
        return x0, guided

    def _moved(self, x0: Tensor, first: int, last: int) -> Tensor:
        """One chunk down the energies; a single row that does not fit goes in ever smaller tiles."""
        try:
            with self._gradients():
                here, clean = ordinary(x0[first:last]), ordinary(self._clean[first:last])
                cells = self._cells_of(first, last)
                return descend(here, clean, self._terms, self._options, self._rows, first, side=self._side, cells=cells)
        except (RuntimeError, MemoryError) as error:
            side = smaller(self._side, x0.shape[-2], x0.shape[-1])
            if last - first > 1 or side is None or not is_out_of_memory(error):
                raise
        logger.warning("Guidance ran out of memory with one picture; going on in tiles of %d cells.", side)
        self._side = side
        return self._moved(x0, first, last)

    def _cells_of(self, first: int, last: int) -> Tensor | None:
        return None if self._cells is None else ordinary(self._cells[first:last])

    def _through_denoiser(self, z: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """As the rest of :meth:`_estimate`, each chunk's denoiser forward kept for its backwards."""
        x0, guided = torch.empty_like(z), torch.empty_like(z)
        call = 0 if self._recorder is None else self._recorder.calls

        def work(first: int, last: int) -> None:
            part = None if self._recorder is None else Recorder(self._recorder.requests)
            with self._gradients():
                leaf = ordinary(z[first:last]).detach().clone().requires_grad_(True)
                rows = self._conditioning.rows(range(first, last))
                found = self._backbone.denoise(leaf, ordinary(self._levels(sigma, last - first)), rows, part)
                found = found.to(leaf)
                self._calls.denoiser += 1

                def pull_back(gradient: Tensor) -> Tensor:
                    self._calls.denoiser_backward += 1
                    (pulled,) = torch.autograd.grad(found, leaf, gradient, retain_graph=True)
                    return pulled

                here = self._checked(found.detach(), first)
                clean = ordinary(self._clean[first:last])
                cells = self._cells_of(first, last)
                moved = descend(here, clean, self._terms, self._options, self._rows, first, pull_back, cells=cells)
            x0[first:last], guided[first:last] = here, moved
            if part is not None and self._recorder is not None:
                _adopt(part, self._recorder, call, first)
            self._tell(0)

        _, self._most = in_chunks(len(z), self._chunk_size(), work)
        if self._recorder is not None:
            self._recorder.calls = call + 1
        self._tell(1 + len(self._terms))
        return x0, guided

    @property
    def _through(self) -> tuple[bool, bool]:
        """Whether gradients pass through the decoder, and through the denoiser."""
        denoiser = self._options.through == "denoiser" or any(term.denoiser for term in self._terms)
        return any(term.decoder for term in self._terms), denoiser

    def _gradients(self) -> AbstractContextManager[None]:
        decoder, denoiser = self._through
        networks = [network for term in self._terms for network in term.networks]
        return self._backbone.gradients(decoder=decoder, denoiser=denoiser, networks=networks)

    def _chunk_size(self) -> int:
        """Rows whose forwards and backwards fit in memory together."""
        sizes, shape = [self._most], self._clean.shape[1:]
        for wanted, decoder in zip(self._through, (True, False), strict=True):
            if wanted:
                sizes.append(self._backbone.rows_that_fit(shape, backward=True, decoder=decoder))
        return min(sizes)

    def _tell(self, units: int) -> None:
        self._done += units
        if self._watch is not None:
            self._watch(self._done, self._units)


def _adopt(part: Recorder, whole: Recorder, call: int, first: int) -> None:
    """Records of a chunk under the numbers of the whole call, without their graph."""
    for record in part:
        key = replace(record.key, call=call, row=first + record.key.row)
        whole.put(replace(record, key=key, value=record.value.detach()))
