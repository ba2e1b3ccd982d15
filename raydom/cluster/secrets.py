"""What must not travel with a job: whoever may use a cluster reads a job's command, environment, metadata and log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from raydom.errors import ConfigError

PASSED = "RAYDOM_"
"""Variables of the environment that begin so are passed without being asked for."""
NO_SECRETS = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
NAMES = re.compile(
    r"^AWS_|^AZURE_|^GOOGLE_|SECRET|TOKEN|PASSW|CREDENTIAL|PRIVATE|ACCESS_KEY|ACCOUNT_KEY|API_?KEY|_KEY$|^SAS|_SAS"
    r"|CONNECTION_STRING|COOKIE",
    re.IGNORECASE,
)
"""Names of variables that hold secrets, or may."""
VALUES = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"  # key ids of AWS
    r"|(?<=://)[^/\s@]*:[^/\s@]+(?=@)"  # user:password@host
    r"|[?&;](sig|signature|x-amz-signature|x-goog-signature|access_token|token)=[^&\s]+"  # signed addresses
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(gh[pousr]_|github_pat_|hf_|xox[abp]-)[A-Za-z0-9_-]{16,}",
    re.IGNORECASE,
)
REMEDY = (
    "Give the nodes the right to the data instead: on AWS an instance profile (IamInstanceProfile in cluster.yaml), on "
    "Kubernetes a service account or a secret that the pods mount."
)


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
        if (name not in NO_SECRETS and NAMES.search(name)) or VALUES.search(environment[name]):
            raise ConfigError(
                f"the environment variable {name} looks like a secret, and whoever may use the cluster could read it "
                f"in the job's metadata. {REMEDY}" + ("" if name in asked else f" Or unset {name} here.")
            )
    return {name: environment[name] for name in sorted(names)}


def check_words(words: Sequence[str]) -> None:
    """Refuse a command that holds a secret.

    Raises:
        ConfigError: Naming the word by its number.
    """
    for number, word in enumerate(words, 1):
        if VALUES.search(word):
            raise ConfigError(
                f"word {number} of the job holds what looks like a key, a password or a signature, and the command of "
                f"a job is shown to all who may use the cluster, and logged. {REMEDY}"
            )


def check_text(text: str, where: str) -> None:
    """Refuse a file that would be shipped and holds a secret.

    Raises:
        ConfigError: Naming the file and the line.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if VALUES.search(line):
            raise ConfigError(
                f"{where}:{number} holds what looks like a key, a password or a signature, and would be shipped to the "
                f"cluster. {REMEDY}"
            )


def redacted(text: str) -> str:
    """The text with what looks like a secret replaced by stars."""
    return VALUES.sub("***", text)
