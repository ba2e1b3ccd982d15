"""The two ways a run can be refused: by the caller's request, or by what is stored."""


class ConfigError(ValueError):
    """The request asks for the impossible: a value in a configuration or argument cannot be used."""


class DataError(ValueError):
    """What is stored is not what it claims to be."""


class DivergedError(ArithmeticError):
    """A training stopped because a loss or a gradient is no longer a finite number."""


class StoppedError(Exception):
    """This process was told to end (SIGTERM) and does so; what was finished is kept."""


class ClusterError(RuntimeError):
    """The machines that worked failed in a way that retrying did not mend; what was finished is kept."""
