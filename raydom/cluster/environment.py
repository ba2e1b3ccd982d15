"""Which variables of the environment a job is given: whoever may use a cluster can read them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from raydom.config.secrets import REMEDY, SECRETS
from raydom.errors import ConfigError

PASSED = "RAYDOM_"
"""Variables that begin so are passed without being asked for."""
NO_SECRETS = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
NAMES = re.compile(
    r"^AWS_|^AZURE_|^GOOGLE_|SECRET|TOKEN|PASSW|CREDENTIAL|PRIVATE|ACCESS_KEY|ACCOUNT_KEY|API_?KEY|_KEY$|^SAS|_SAS"
    r"|CONNECTION_STRING|COOKIE",
    re.IGNORECASE,
)
"""Names of variables that hold secrets, or may."""


def passed_environment(asked: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a job is given: those asked for by name, and those that are raydom's.

    Args:
        asked: Names.
        environment: Of this process.

    Raises:
        ConfigError: For one that is not set, and for what looks like a secret; its value is not told.
    """
    for name in asked:
        if name not in environment:
            raise ConfigError(f"--env {name}: the variable is not set here. Set it, or leave the option out.")
    names = {*asked, *(name for name in environment if name.startswith(PASSED))}
    for name in sorted(names):
        if (name not in NO_SECRETS and NAMES.search(name)) or SECRETS.search(environment[name]):
            raise ConfigError(
                f"the environment variable {name} looks like a secret, and whoever may use the cluster could read it "
                f"in the job's metadata. {REMEDY}" + ("" if name in asked else f" Or unset {name} here.")
            )
    return {name: environment[name] for name in sorted(names)}
