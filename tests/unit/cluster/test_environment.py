"""Which variables travel with a job."""

import pytest

from raydom.cluster.environment import passed_environment
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
