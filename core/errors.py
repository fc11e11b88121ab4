"""Named errors. Each says what was expected, what came, and what to do about it."""


class LatentCriticError(Exception):
    """Base of every error that this package raises on purpose."""

    def __init__(self, expected: str, got: str, remedy: str) -> None:
        self.expected, self.got, self.remedy = expected, got, remedy
        super().__init__(f"Expected {expected}; got {got}. {remedy}")


class BadInput(LatentCriticError, ValueError):
    """A value at the door has the wrong type, shape or range."""


class UnsupportedFamily(LatentCriticError):
    """The loaded diffusion model is of no known family; scorers that need only images still work."""


class MismatchedBackbone(LatentCriticError):
    """A head, text encoder or VAE was made for another diffusion model."""


class UncalibratedThreshold(LatentCriticError, ValueError):
    """An absolute threshold on a score that has no absolute scale."""


class MissingDependency(LatentCriticError, ImportError):
    """An optional package is needed for this one feature."""


class UnreadableFile(LatentCriticError, OSError):
    """A file is missing, truncated, or not of the format that its name promises."""


class NothingScored(LatentCriticError):
    """No image of a batch got a score, so there is nothing to choose from."""


class UnwritableFile(LatentCriticError, OSError):
    """A file could not be written: the disk is full, or the folder takes no files."""
