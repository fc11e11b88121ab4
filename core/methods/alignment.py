"""Prompt alignment: how much the image answers to each word of a prompt inside the denoiser's cross-attention.

At a few low noise levels the cross-attention's probabilities (softmax over the tokens) are averaged over heads, layers
and levels: how much each place looks at each word. The same is done with a latent of nothing (zeros) under the same
noise. A word's map is the log of the ratio of the two, place by place, so that what the model always does with a word,
at that place, is taken away; its number is the log of the ratio of their means. 0: as if there were no picture. A model
whose attention does not depend on the picture gives 0 everywhere, at every size. Ours; it has no published figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from ..backbone.schedule import noised, sigma_of_timestep
from ..errors import BadInput
from ..images import as_list, reason_unscorable
from ..records import Score, ScoreBatch, ScoreSpec
from ..taps.recorder import Recorder
from ..taps.reducers import maps_of_tokens
from .alignment_spread import Spread, spread_on
from .alignment_words import Aligned, aligned, spans, word_names
from .genziqa_settings import check_timesteps
from .native_size import native_policy, native_shape, to_native
from .prompt_reader import attention_taps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..backbone.contracts import Backbone, Conditioning
    from .contract import Images, Watch

#: Images whose pixels, latents and sums are held at a time.
AT_ONCE = 16
_BLIND_TO = "how many of a thing there are, where it is, words that the text encoder does not know, quality"
_NO_WORDS = "its prompt holds no words"


@dataclass(frozen=True, slots=True)
class AlignmentOptions:
    """Settings of prompt alignment.

    Attributes:
        timesteps: DDPM timesteps of the noise levels.
        seed: First seed of the noise; the level of timestep t uses seed + t.
        most_rows: Rows in one forward at most.
        side: Root of the area in pixels; the family's native size when left out.
        spread: Fixed spread for blending, in the numbers' own unit. Left out: the one measured on the model, where the
            package holds one for it and these settings, and a convention elsewhere.
    """

    timesteps: tuple[int, ...] = (21, 57, 93)
    seed: int = 0
    most_rows: int = 32
    side: int | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        check_timesteps(self.timesteps)
        if self.most_rows < 1:
            raise BadInput("at least 1 row in a forward", str(self.most_rows), "The default is 32.")
        if self.side is not None and not 64 <= self.side <= 4096:
            raise BadInput("a side from 64 to 4096 pixels", str(self.side), "Leave it out for the model's own size.")
        if self.spread is not None and not (math.isfinite(self.spread) and self.spread > 0.0):
            raise BadInput("a spread > 0", str(self.spread), "Leave it out for the measured one or the convention.")


@dataclass(frozen=True, slots=True)
class _Job:
    """A latent that is read with one text: an image, or nothing (``place`` -1)."""

    place: int
    text: int


@dataclass(slots=True)
class _Sum:
    """Running sum of a job's maps [words, h, w] over layers and levels, float32 on the CPU."""

    total: Tensor | None = None
    count: int = 0

    def add(self, maps: Tensor) -> None:
        self.total = maps if self.total is None else self.total.add_(maps)
        self.count += 1

    def mean(self, whole: int) -> Tensor | None:
        """``None`` unless there were as many as there should be."""
        # A layer that was silent once, with the image or with nothing, would make a ratio of unlike things.
        return None if self.total is None or self.count != whole else self.total / whole


class PromptAlignment:
    """Alignment of images with their own prompts on the loaded model; a :class:`~.contract.Scorer`.

    Args:
        backbone: The loaded model; it needs its text encoder and VAE.
        options: Noise levels and the like.
        prompt: For images that come without prompts; left out, they get a reason.

    Raises:
        BadInput: a model without text cross-attention.
    """

    def __init__(self, backbone: Backbone, options: AlignmentOptions | None = None, prompt: str | None = None) -> None:
        self._backbone, self._options, self._prompt = backbone, options or AlignmentOptions(), prompt
        family = backbone.family
        self._taps = attention_taps(family.taps, None)
        self._sigmas = [sigma_of_timestep(t, family.prediction) for t in self._options.timesteps]
        chosen = self._options
        self._spread = spread_on(backbone, chosen.timesteps, chosen.side, chosen.spread)

    @property
    def spread(self) -> Spread:
        """What blends divide the numbers by, and where it comes from."""
        return self._spread

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean: natural logs on an open scale; 0 as if there were no picture."""
        return ScoreSpec(
            name="prompt_alignment",
            spread=self._spread.value,
            needs=("image", "prompt", "model", "clip", "vae"),
            size_policy=native_policy(self._backbone.family, self._options.side),
            blind_to=_BLIND_TO,
            backbone=self._backbone.fingerprint.to_text(),
            settings={
                **asdict(self._options),
                "spread": self._spread.value,
                "spread_is": self._spread.source,
                "timesteps": list(self._options.timesteps),
                "sigmas": list(self._sigmas),
                "prompt": self._prompt,
                "identity": dict(self._backbone.identity),
            },
        )

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """The mean over each prompt's words; the attributes hold every word's number."""
        found = self.align(images, prompts, watch=watch)
        return ScoreBatch(self.spec, tuple(scored(place, one) for place, one in enumerate(found)))

    def align(
        self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> list[Aligned | Score]:
        """Numbers and maps of every image, or a score without a value that says why there are none.

        Raises:
            BadInput: not as many prompts as images.
        """
        found = as_list(images)
        texts = self._texts(len(found), prompts)
        known = {text: place for place, text in enumerate(dict.fromkeys(text for text in texts if text.strip()))}
        conditioning = self._backbone.embed(list(known)) if known else None
        result: dict[int, Aligned | Score] = {}
        groups: dict[tuple[int, int], list[_Job]] = {}
        for place, (image, text) in enumerate(zip(found, texts, strict=True)):
            size = self._size(image, text, conditioning, known)
            if isinstance(size, str):
                result[place] = Score(None, place, reason=size)
            else:
                groups.setdefault(size, []).append(_Job(place, known[text]))
        total = sum(len(self._chunks(size, one)) for size, jobs in groups.items() for one in _blocks(jobs))
        counter = _counted(watch, total)
        with torch.no_grad():
            for size, jobs in groups.items():
                assert conditioning is not None
                result.update(self._group(size, jobs, found, conditioning, counter))
        return [result[place] for place in range(len(found))]

    def _texts(self, count: int, prompts: Sequence[str] | None) -> list[str]:
        if prompts is None:
            return [self._prompt or ""] * count
        if isinstance(prompts, str) or len(prompts) != count or not all(isinstance(text, str) for text in prompts):
            raise BadInput(f"{count} prompts, one text per image", repr(prompts)[:60], "Repeat one text for all.")
        return list(prompts)

    def _size(
        self, image: Tensor, text: str, conditioning: Conditioning | None, known: dict[str, int]
    ) -> tuple[int, int] | str:
        reason = reason_unscorable(image)
        if reason is not None:
            return reason
        if conditioning is None or text not in known or not spans(conditioning, known[text]):
            return _NO_WORDS
        try:
            return native_shape(int(image.shape[1]), int(image.shape[2]), self._backbone.family, self._options.side)
        except BadInput as error:
            return str(error)

    def _chunks(self, size: tuple[int, int], jobs: Sequence[_Job]) -> list[range]:
        """The rows of each forward, of [job, level]."""
        family, rows = self._backbone.family, len(jobs) * len(self._sigmas)
        shape = (family.latent_channels, *(side // family.latent_stride for side in size))
        most = min(self._options.most_rows, self._backbone.rows_that_fit(shape))
        count = -(-rows // most)
        return [range(rows * i // count, rows * (i + 1) // count) for i in range(count)]

    def _group(
        self, size: tuple[int, int], jobs: Sequence[_Job], images: Sequence[Tensor], texts: Conditioning, counter: Any
    ) -> dict[int, Aligned | Score]:
        """Images of one size, a block at a time."""
        found: dict[int, Aligned | Score] = {}
        nothing: dict[int, Tensor | None] = {}
        for block in _blocks(jobs):
            means = self._block(size, block, images, texts, counter)
            # Only the last text of a block may go on in the next one.
            nothing = dict(list(nothing.items())[-1:]) | {job.text: means[job] for job in block if job.place < 0}
            for job in block:
                if job.place < 0:
                    continue
                maps = aligned(means[job], nothing[job.text])
                if isinstance(maps, str):
                    found[job.place] = Score(None, job.place, reason=maps)
                else:
                    found[job.place] = Aligned(word_names(texts, job.text), *maps, size)
        return found

    def _block(
        self, size: tuple[int, int], jobs: Sequence[_Job], images: Sequence[Tensor], texts: Conditioning, counter: Any
    ) -> dict[_Job, Tensor | None]:
        """Mean maps of each job; nothing comes first."""
        real = [to_native(images[job.place], size) for job in jobs if job.place >= 0]
        z = self._backbone.encode(torch.stack(real)).float()
        clean = torch.cat([z.new_zeros(len(jobs) - len(real), *z.shape[1:]), z])
        eps = torch.stack([self._backbone.noise(z.shape[1:], self._options.seed + t) for t in self._options.timesteps])
        sums = {job: _Sum() for job in jobs}
        for rows in self._chunks(size, jobs):
            self._forward(rows, jobs, clean, eps.to(z), texts, sums)
            counter()
        whole = len(self._taps) * len(self._sigmas)
        return {job: found.mean(whole) for job, found in sums.items()}

    def _forward(
        self,
        rows: range,
        jobs: Sequence[_Job],
        clean: Tensor,
        eps: Tensor,
        texts: Conditioning,
        sums: dict[_Job, _Sum],
    ) -> None:
        levels = len(self._sigmas)
        job, level = [row // levels for row in rows], [row % levels for row in rows]
        sigma = torch.tensor(self._sigmas, device=clean.device)[level]
        z_t = noised(clean[job], eps[level], sigma, self._backbone.family.prediction)
        read = {j: spans(texts, jobs[j].text) for j in set(job)}
        start = min(first for one in read.values() for first, _ in one.values())
        stop = max(last for one in read.values() for _, last in one.values())
        recorder = Recorder.of(self._taps, maps_of_tokens(start, stop))
        self._backbone.features(z_t, sigma, texts.rows([jobs[j].text for j in job]), recorder)
        finest = min(tap.stride for tap in self._taps)
        grid = tuple(-(-side // finest) for side in clean.shape[2:])
        for tap in self._taps:
            for record in recorder.rows(tap.name):
                one = job[record.key.row]
                parts = [record.value[first - start : last - start].sum(0) for first, last in read[one].values()]
                words = torch.stack(parts).float().cpu()
                fine = F.interpolate(words[None], size=grid, mode="bilinear", align_corners=False)[0]
                sums[jobs[one]].add(fine)


def _blocks(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Images by text, a few at a time, after nothing with each text that has not been read before."""
    ordered, known = sorted(jobs, key=lambda job: job.text), set[int]()
    for first in range(0, len(ordered), AT_ONCE):
        mine = ordered[first : first + AT_ONCE]
        fresh = [text for text in dict.fromkeys(job.text for job in mine) if text not in known]
        known.update(fresh)
        yield [*(_Job(-1, text) for text in fresh), *mine]


def scored(place: int, found: Aligned | Score) -> Score:
    """An alignment as a score; a score without a value as it is."""
    return found if isinstance(found, Score) else found.score(place)


def _counted(watch: Watch | None, total: int) -> Any:
    done = 0

    def one() -> None:
        nonlocal done
        done += 1
        if watch is not None:
            watch(done, total)

    return one
