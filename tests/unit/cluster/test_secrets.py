"""What must not travel with a job."""

import pytest

from raydom.cluster.secrets import check_text, check_words, passed_environment, redacted
from raydom.errors import ConfigError

KEY = "AKIA" + "ABCDEFGH" + "12345678"


def test_variables_asked_for_and_those_of_raydom_are_passed():
    here = {"RAYDOM_SCRATCH": "/x", "OMP_NUM_THREADS": "2", "AWS_REGION": "us-west-2", "HOME": "/root", "TOKEN": "t"}
    assert passed_environment(["OMP_NUM_THREADS", "AWS_REGION"], here) == {
        "RAYDOM_SCRATCH": "/x", "OMP_NUM_THREADS": "2", "AWS_REGION": "us-west-2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_PROFILE", "hunter2"),
        ("RAY_AUTH_TOKEN", "hunter2"),
        ("AZURE_STORAGE_CONNECTION_STRING", "hunter2"),
        ("RAYDOM_DB_PASSWORD", "hunter2"),
        ("PROXY", "http://me:hunter2@proxy:3128"),
        ("RAYDOM_STORE", KEY),
    ],
)
def test_secrets_are_refused_with_the_remedy_and_never_told(name, value):
    asked = [] if name.startswith("RAYDOM_") else [name]
    with pytest.raises(ConfigError, match=rf"{name} looks like a secret.*instance profile") as told:
        passed_environment(asked, {name: value})
    assert "hunter2" not in str(told.value) and KEY not in str(told.value)


def test_a_variable_that_is_not_set_is_told():
    with pytest.raises(ConfigError, match=r"--env NOWHERE: the variable is not set here"):
        passed_environment(["NOWHERE"], {})


@pytest.mark.parametrize(
    "word",
    ["s3://me:hunter2@bucket/x", "az://c/x?sv=1&sig=hunter2%3D", f"--out=s3://{KEY}/x", "https://h/x?token=hunter2"],
)
def test_a_command_or_a_configuration_with_a_secret_is_refused(word):
    with pytest.raises(ConfigError, match="word 3 of the job") as told:
        check_words(["segment", "--out", word])
    assert "hunter2" not in str(told.value) and KEY not in str(told.value)
    with pytest.raises(ConfigError, match=r"x\.yaml:2 holds"):
        check_text(f"a: b\nout: {word}\n", "x.yaml")
    assert "hunter2" not in redacted(word) and KEY not in redacted(word)


def test_ordinary_addresses_are_no_secrets():
    words = ["segment", "--collection", "s3://bucket/a@b/c", "--out", "https://host:8000/x?signal=3", "--keep", "a:b"]
    check_words(words)
    assert [redacted(word) for word in words] == words
