"""The recorder: an explicit store that the caller hands to one or more forwards.

A tap request carries a reducer that is applied at once inside the forward, so that full attention maps and feature
maps are kept only when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ..errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Tap


@dataclass(frozen=True, slots=True)
class Grid:
    """The height and width of a token grid; nobody takes a square root of a token count."""

    h: int
    w: int


#: Features: [rows, channels, h, w] → [rows, …]. Attention: fp32 logits [rows, heads, h*w, tokens] → [rows, …].
Reducer: TypeAlias = Callable[["Tensor", Grid], "Tensor"]


@dataclass(frozen=True, slots=True)
class TapRequest:
    """One tap to read, and what to keep of it."""

    tap: Tap
    reducer: Reducer


@dataclass(frozen=True, slots=True)
class Key:
    """Which value: the tap, the forward's number in this recorder, the branch (``cond``/``uncond``) and the row."""

    tap: str
    call: int
    branch: str
    row: int


@dataclass(frozen=True, slots=True)
class Record:
    """One row's reduced value at one tap."""

    key: Key
    sigma: float
    grid: Grid
    value: Tensor


@dataclass(slots=True)
class Recorder:
    """Requests in, records out.

    ``row`` counts rows of the *whole* call, also when the host computes it in several chunks. Where several conditions
    of one branch cover a row (areas, combined prompts), the last one computed stays.
    """

    requests: tuple[TapRequest, ...]
    records: dict[Key, Record] = field(default_factory=dict)
    calls: int = 0

    def __post_init__(self) -> None:
        names = [request.tap.name for request in self.requests]
        if not names or len(set(names)) < len(names):
            raise BadInput("each tap requested once, and at least one", repr(names), "Join reducers with `several`.")

    @classmethod
    def of(cls, taps: Iterable[Tap], reducer: Reducer) -> Recorder:
        """One reducer for several taps."""
        return cls(tuple(TapRequest(tap, reducer) for tap in taps))

    def wanted(self, known: Iterable[Tap]) -> dict[str, TapRequest]:
        """The requests by tap name, in the order of ``known``: the taps of the model that is about to run.

        Raises:
            BadInput: a request names a tap that the model does not have.
        """
        order = [tap.name for tap in known]
        requests = {request.tap.name: request for request in self.requests}
        missing = sorted(set(requests) - set(order))
        if missing:
            raise BadInput(f"taps of this model ({', '.join(order)})", ", ".join(missing), "Take them from its family.")
        return {name: requests[name] for name in order if name in requests}

    def put(self, record: Record) -> None:
        """Store one record."""
        self.records[record.key] = record

    def rows(self, tap: str, call: int = 0, branch: str = "cond") -> list[Record]:
        """The records of one tap in one forward, by row."""
        found = [r for r in self.records.values() if r.key.tap == tap and r.key.call == call and r.key.branch == branch]
        return sorted(found, key=lambda record: record.key.row)

    def silent(self) -> list[str]:
        """Requested taps that never fired: step caches and compiled graphs may skip blocks."""
        fired = {key.tap for key in self.records}
        return [request.tap.name for request in self.requests if request.tap.name not in fired]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records.values())
