"""Submission without a cluster: what is refused before, how endings are told apart, and what is repeated."""

import os

import pytest
import requests
from ray.job_submission import JobDetails

from raydom.cli import main, parse
from raydom.cluster import job_server, retries
from raydom.cluster.job_server import JobServer
from raydom.cluster.retries import Submission, exit_code, loss
from raydom.errors import ClusterError


def ended(status="FAILED", code=None, error_type=None):
    return JobDetails(
        type="SUBMISSION", status=status, entrypoint="x", driver_exit_code=code, error_type=error_type, message="why"
    )


@pytest.mark.parametrize(
    ("info", "is_lost", "code"),
    [
        (ended("SUCCEEDED", 0), False, 0),
        (ended("STOPPED"), False, 143),
        (ended(code=1, error_type="JOB_ENTRYPOINT_COMMAND_ERROR"), False, 1),
        (ended(code=2, error_type="JOB_ENTRYPOINT_COMMAND_ERROR"), False, 2),
        (ended(code=127, error_type="JOB_ENTRYPOINT_COMMAND_ERROR"), False, 127),
        (ended(error_type="RUNTIME_ENV_SETUP_FAILURE"), False, 1),
        (ended(code=-9), True, 1),
        (ended(code=137), True, 1),
        (ended(code=143), True, 1),
        (ended(error_type="JOB_SUPERVISOR_ACTOR_DIED"), True, 1),
        (None, True, 1),
    ],
)
def test_a_killed_driver_is_a_loss_and_a_failure_of_the_job_is_not(info, is_lost, code):
    assert (loss(info) is not None, exit_code("j", info, lambda text: None)) == (is_lost, code)


class Server(JobServer):
    """Takes jobs whose ends are known beforehand."""

    address = "http://head:8265"

    def __init__(self, *ends):
        self.ends, self.taken = list(ends), []

    def submit(self, entrypoint, submission_id, runtime_env, metadata):
        assert runtime_env == {"env_vars": {"RAYDOM_JOB": submission_id}}
        self.taken.append((submission_id, entrypoint, metadata["attempt"]))

    def follow(self, job_id, show, tell):
        return self.ends.pop(0)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(retries, "PAUSE_S", 0.0)
    monkeypatch.setattr(retries, "PAUSE_DEAD_S", 0.01)


def submission(server, told):
    job = Submission(server, "raydom-x", "python job", {}, show=print, tell=told.append)
    job.submit()
    return job


def test_a_lost_driver_is_submitted_again_under_another_id_until_it_ends_by_itself():
    server, told = Server(ended(code=-9), None, ended(code=1)), []
    assert submission(server, told).see_through(5) == 1
    assert server.taken == [(f"raydom-x{n}", "python job", a) for n, a in (("", "1"), ("-2", "2"), ("-3", "3"))]
    assert "killed (signal 9)" in told[0] and "raydom-x-2, retry 1 of 5" in told[0]
    assert "head of the cluster" in told[1]


def test_losses_beyond_the_retries_are_told_with_the_remedy():
    server = Server(ended(code=-9), ended(code=-11))
    with pytest.raises(ClusterError, match=r"raydom-x-2: its driver was killed \(signal 11\).*--retries N"):
        submission(server, []).see_through(1)
    assert len(server.taken) == 2


def test_a_terminal_can_be_left_and_no_secret_travels(monkeypatch, tmp_path, capsys):
    class Left(Server):
        def __init__(self, address):
            super().__init__()

        def submit(self, entrypoint, submission_id, runtime_env, metadata):
            sent.append((entrypoint, runtime_env, metadata))

        def follow(self, job_id, show, tell):
            raise KeyboardInterrupt

    sent = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    monkeypatch.setattr("raydom.cluster.submission.JobServer", Left)
    for name in [name for name in os.environ if name.startswith("RAYDOM_")]:  # which would travel
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert main(["submit", "--wait", "info", "s3://b/my collection", "--env", "OMP_NUM_THREADS"]) == 130
    ((entrypoint, runtime_env, metadata),) = sent
    assert entrypoint == "python -m raydom.cli info 's3://b/my collection'" and metadata == {"attempt": "1"}
    variables = runtime_env["env_vars"]
    assert variables.pop("RAYDOM_JOB").startswith("raydom-info-")
    assert variables == {"OMP_NUM_THREADS": "2", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
    assert runtime_env["py_modules"] and "hunter2" not in str(runtime_env)
    told = capsys.readouterr().err
    assert "goes on without this terminal" in told and "logs raydom-info-" in told and "--follow --address http" in told


REFUSED = (
    "HTTPConnectionPool(host='head', port=8265): Max retries exceeded with url: /api/jobs/j (Caused by "
    'NewConnectionError("HTTPConnection(host=head, port=8265): Failed to establish a new connection: [Errno 111] '
    'Connection refused"))'
)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (requests.ConnectionError(REFUSED), "Connection refused"),
        (
            requests.ConnectionError("('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))"),
            "Connection reset by peer",
        ),
        (requests.ConnectTimeout("HTTPConnectionPool(host='head', port=8265): ..."), "no answer in time"),
        (RuntimeError("Request failed with status code 500:\n  No available agent"), "500: No available agent"),
    ],
)
def test_why_a_server_does_not_answer_is_told_in_a_few_words(raised, told):
    with pytest.raises(job_server.AwayError) as caught, job_server._told():
        raise raised
    assert str(caught.value).endswith(told) and len(str(caught.value)) < 60


def test_a_server_that_is_away_is_waited_for_and_its_log_is_shown_once(monkeypatch):
    class Client:
        looks = 0

        def get_address(self):
            return "http://me:hunter2@head:8265"

        def get_job_info(self, job_id):
            self.looks += 1
            if self.looks == 2:
                raise requests.ConnectionError(REFUSED)
            return ended("SUCCEEDED", 0) if self.looks == 4 else ended("RUNNING")

        def get_job_logs(self, job_id):
            return "one\ntwo\nthree\nfour\n"[: 5 * self.looks]

    server = JobServer.__new__(JobServer)
    server._client = Client()
    monkeypatch.setattr(job_server, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(job_server, "LOG_BYTES_PER_S", 1e9)
    shown, told = [], []
    assert server.follow("j", shown.append, told.append).driver_exit_code == 0
    assert "".join(shown) == "one\ntwo\nthree\nfour\n"[:20]
    away, again = told
    assert away == "http://***@head:8265 does not answer (Connection refused); waiting for it for up to 15 min."
    assert again.startswith("http://***@head:8265 answers again, after ")


def test_a_job_is_looked_at_before_it_is_sent(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    segment = ["segment", "--collection", "s3://b/c", "--model", "s3://b/m", "--out"]
    job = parse("submit", ["--wait", *segment, "/shared/out", "--address", "http://h:1", "--retries=3", "--env", "A"])
    assert job.job == (*segment, "/shared/out")
    assert (job.wait, job.address, job.retries, job.env) == (True, "http://h:1", 3, ("A",))
    for words, told in [
        ([*segment, "out"], "would write to 'out', which on the cluster is a temporary folder"),
        (["sgment"], "'sgment' is no job to submit"),
        (["jobs"], "'jobs' is no job to submit"),
        (["evaluate", "--prediction", "p", "--truth", "/t"], "would write to 'p'"),
        ([*segment, "s3://me:pw@b/x"], "out holds what looks like a key"),
        ([*segment, "s3://b/x", "--style", "s.png"], "--style s.png has no effect"),
        ([*segment, "s3://b/x", "--env", "AWS_SECRET_ACCESS_KEY"], "AWS_SECRET_ACCESS_KEY: the variable is not set"),
        ([*segment, "s3://b/x", "--address", "http://127.0.0.1:9"], "no job server answers at http://127.0.0.1:9"),
    ]:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        assert main(["submit", *words]) == 2, words
        assert told in capsys.readouterr().err
    assert retries.STOPPED == 143
