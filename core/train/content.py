"""Pictures of like content, found by clustering, so that a split can keep them together."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..errors import MissingDependency
from ..nets.efficientnet_lite import HEAD


def content_groups(whole: Tensor, per_group: int = 25, seed: int = 0) -> list[int]:
    """Statistics of global views [n, D] → a cluster number per picture.

    The deepest map's channel means say what a picture shows: normalised, reduced to 64 principal components, and
    clustered by k-means into groups of about ``per_group`` pictures.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.decomposition import PCA
    except ImportError as error:
        remedy = "pip install 'latent-critic[train]'"
        raise MissingDependency("scikit-learn for training", "no module sklearn", remedy) from error
    directions = F.normalize(whole[:, -2 * HEAD : -HEAD].float(), dim=1).numpy()
    reduced = PCA(min(64, len(directions)), random_state=seed).fit_transform(directions)
    groups = max(2, len(directions) // per_group)
    clusters = MiniBatchKMeans(groups, random_state=seed, n_init=3)  # type: ignore[arg-type]
    return clusters.fit_predict(reduced).tolist()
