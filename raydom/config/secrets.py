"""What looks like a secret, and has no place in a configuration: that is kept beside results, shown and logged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from raydom.config.base import to_dict
from raydom.errors import ConfigError

SECRETS = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"  # key ids of AWS
    r"|(?<=://)[^/\s@]*:[^/\s@]+(?=@)"  # user:password@host
    r"|(?<=[?&;])(sig|signature|x-amz-signature|x-goog-signature|access_token|token)=[^&\s]+"  # signed addresses
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(gh[pousr]_|github_pat_|hf_|xox[abp]-)[A-Za-z0-9_-]{16,}",
    re.IGNORECASE,
)
REMEDY = (
    "Give those who read and write the right to do so instead: here by the environment or the files of the store's "
    "client (~/.aws, ~/.netrc), on AWS by an instance profile (IamInstanceProfile in cluster.yaml), on Kubernetes by a "
    "service account."
)


def redacted(text: str) -> str:
    """The text with what looks like a secret replaced by stars."""
    return SECRETS.sub("***", text)


def check_no_secrets(config: Any) -> None:
    """Refuse a configuration with a key, a password or a signature in it.

    Raises:
        ConfigError: Naming the setting, and not its value.
    """
    for setting, text in _texts(to_dict(config), ""):
        if setting.endswith("address"):  # of a cluster: Ray allows a password in it, and it is kept nowhere
            continue
        if SECRETS.search(text):
            raise ConfigError(
                f"{setting} holds what looks like a key, a password or a signature, which would be kept beside the "
                f"results, shown and logged. {REMEDY}"
            )


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{where}.{name}" if where else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from _texts(inner, f"{where} (word {number})")
    elif isinstance(value, str):
        yield where, value
