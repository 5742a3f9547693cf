"""The package's own errors.

Each message says what was given, what is allowed, and what to do. The command line prints the message as one line and
exits with code 2; from Python they are ordinary ``ValueError`` / ``RuntimeError`` subclasses.
"""


class SnugnetError(Exception):
    """Base of every error that snugnet raises on purpose."""


class SpaceError(SnugnetError, ValueError):
    """A search space, an option of one, or an architecture that does not exist."""


class BudgetError(SnugnetError, ValueError):
    """A budget that cannot be read, or that no architecture meets."""


class ConfigError(SnugnetError, ValueError):
    """A recipe, key, name or value that is not allowed."""


class DataError(SnugnetError, ValueError):
    """Images, labels or groups that cannot be used."""


class FamilyError(SnugnetError, ValueError):
    """A family on disk that is missing, truncated, altered or too new, or a group that it does not know."""


class NetworkError(SnugnetError, ValueError):
    """A network on disk that is missing, truncated, altered or too new, or what cannot be asked of a single network."""


class PredictorError(SnugnetError, ValueError):
    """An accuracy predictor on disk that is missing, damaged or too new, or samples that none can be fitted to."""


class ExportError(SnugnetError, RuntimeError):
    """An exported file that does not agree with the network it was made from."""


class TrainingError(SnugnetError, RuntimeError):
    """Training that cannot go on, such as a loss that is not finite."""


class SearchError(SnugnetError, RuntimeError):
    """A search that cannot begin, go on, or give what was asked for."""


class BusyError(SnugnetError, RuntimeError):
    """A folder that another process is working in."""


class ClusterError(SnugnetError, RuntimeError):
    """Machines that cannot be joined, or that do not answer."""


class RemoteError(SnugnetError, RuntimeError):
    """A service that cannot be reached, or that refuses what it was asked for."""


class MissingPackageError(SnugnetError, ImportError):
    """A package that only some uses need, and that is not installed (:mod:`snugnet.extras`)."""
