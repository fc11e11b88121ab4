"""A judge's head made small: the best linear squeeze before its hidden layer."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BadInput
from ..nets.judge import DESCRIPTION, JudgeHead


@torch.no_grad()
def reduced(head: JudgeHead, descriptions: Tensor, rank: int) -> JudgeHead:
    """The head whose hidden layer reads ``rank`` linear mixtures of what this one reads.

    Of all layers of that rank it has the one whose outputs on these descriptions are nearest to the old ones in squared
    error: with outputs Y = X Wᵀ and U the first right singular vectors of Y, that is U Uᵀ W (Eckart and Young, 1936).
    With ``rank`` = width nothing changes.

    Args:
        head: A head without a squeeze.
        descriptions: Of training pictures [n, 2 D].
        rank: Units of the squeeze.

    Raises:
        BadInput: a rank outside 1 … width, or a head that has a squeeze already.
    """
    if not 1 <= rank <= head.width or head.squeeze is not None:
        got = f"rank {rank} of a head {head.width} wide" + (" with a squeeze" if head.squeeze is not None else "")
        raise BadInput(f"a rank from 1 to {head.width} for a plain head", got, "Choose another rank.")
    weight = head.hidden.weight
    gram = torch.zeros(head.width, head.width, dtype=torch.float64)
    for part in descriptions.split(512):
        outputs = (head.standardised(part) @ weight.T).double()
        gram += outputs.T @ outputs
    directions = torch.linalg.eigh(gram).eigenvectors[:, -rank:].float()
    with torch.random.fork_rng(devices=[]):
        small = JudgeHead(head.width, rank=rank)
    assert small.squeeze is not None
    small.squeeze.weight.copy_(directions.T @ weight)
    small.hidden.weight.copy_(directions)
    small.hidden.bias.copy_(head.hidden.bias)
    small.out.load_state_dict(head.out.state_dict())
    small.centre.copy_(head.centre)
    small.scale.copy_(head.scale)
    return small.eval().requires_grad_(False)


def parameters(head: JudgeHead) -> int:
    """Weights of a head."""
    return sum(weight.numel() for weight in head.parameters()) + 2 * DESCRIPTION
