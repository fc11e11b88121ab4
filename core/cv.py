"""The one door to OpenCV, which users hold under several package names (and which our nodes never need)."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import MissingDependency


def cv2() -> ModuleType:
    """The cv2 module.

    Raises:
        MissingDependency: no OpenCV package is installed.
    """
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise MissingDependency(
            "OpenCV for this feature",
            "no module cv2",
            "pip install 'latent-critic[cv]', or any other opencv package.",
        ) from error
