"""The two ways a run can be refused: by the caller's request, or by what is stored."""


class ConfigError(ValueError):
    """The request asks for the impossible: a value in a configuration or argument cannot be used."""


class DataError(ValueError):
    """What is stored is not what it claims to be."""
