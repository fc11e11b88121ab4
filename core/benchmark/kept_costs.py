"""What kept scores cost: told by the log of the run that made them, for a run that took all of them from a store."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from .costs import Costs
from .scoring import Scored


def costs_of(scored: Scored, data: str, split: str, log: Path | None) -> Costs:
    """Of these scores: measured now, or else by the log's last run of the same scorer on the same pictures.

    Args:
        scored: Scores of one scorer.
        data: The set's name, as it is logged.
        split: The part.
        log: Of test runs; ``None`` for none.

    What a scorer costs on held-out ladders is taken whatever their pictures were: the log does not name them.

    Returns:
        Empty costs where nobody measured any.
    """
    if scored.costs.images_per_second is not None or log is None or not log.exists():
        return scored.costs
    spec = scored.spec
    wanted = {"data": data, "split": split, "scorer": spec.name, "backbone": spec.backbone}
    settings = json.loads(json.dumps(dict(spec.settings)))
    for line in reversed(log.read_text(encoding="utf-8").splitlines()):
        run: dict[str, Any] = json.loads(line)
        same = all(run.get(name) == value for name, value in wanted.items()) and run.get("settings") == settings
        if same and run.get("images_per_second") is not None:
            return Costs(**{field.name: run[field.name] for field in fields(Costs)})
    return scored.costs
