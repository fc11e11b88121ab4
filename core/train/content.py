"""Pictures of like content, found by clustering, so that a split can keep them together."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

from ..errors import MissingDependency
from ..nets.efficientnet_lite import HEAD

_log = logging.getLogger(__name__)


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


def united(clusters: Sequence[int], groups: Sequence[str], share: float) -> list[int]:
    """Cluster and named group of each picture → numbers that no two pictures of one cluster or one group differ in.

    Where that ties so many pictures together that no split could hold back about ``share`` of them, the named groups
    alone count, and the log says so.
    """
    names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    if len(names) == len(groups):
        return list(clusters)
    rows, columns = np.asarray(clusters), np.array([names[group] for group in groups])
    first = int(rows.max()) + 1
    size = first + len(names)
    links = coo_matrix((np.ones(len(rows)), (rows, first + columns)), shape=(size, size))
    found = connected_components(links, directed=False)[1][rows].tolist()
    if max(Counter(found).values()) <= (1 - share) * len(found):
        return found
    _log.warning("Groups and like contents together cannot be split; the split for validation keeps to the groups.")
    return columns.tolist()
