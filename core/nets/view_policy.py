"""How many views of a picture the built-in judge looks at: all of them, or few where time counts."""

from __future__ import annotations

from ..errors import BadInput
from .views import MOST_CROPS, SIZE_POLICY

#: Policy → the most native-scale crops beside the global view. ``fast`` is the one that `latent-critic train
#: judge-views` chose on the validation part; core/assets/judge/views.json has its loss of agreement.
POLICIES: dict[str, int] = {"full": MOST_CROPS, "fast": 2}


def most_crops(policy: str) -> int:
    """The most native-scale crops of a policy.

    Raises:
        BadInput: no such policy.
    """
    if policy not in POLICIES:
        raise BadInput(f"a view policy of {', '.join(POLICIES)}", repr(policy), "full is the default.")
    return POLICIES[policy]


def size_policy(most: int) -> str:
    """How a picture becomes network input with at most that many crops, in words."""
    if most == MOST_CROPS:
        return SIZE_POLICY
    return SIZE_POLICY.replace(f"up to {MOST_CROPS} ", f"up to {most} ")
