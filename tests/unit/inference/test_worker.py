import threading
import time

import pytest

from raydom.errors import ClusterError
from raydom.inference.tasks import Task
from raydom.inference.worker import BlockWorker, batch_name
from raydom.storage import files
from raydom.storage.receipts import RunFolder
from raydom.types import Block, Region


def _tasks(count):
    blocks = [Block("img", Region((16 * n, 0), (16 * n + 16, 16))) for n in range(count)]
    return [Task(0, "block", block, "recipe") for block in blocks]


class Squares:
    """Writes the square of a block's first row; fails as often as it is told to."""

    def __init__(self, failures=None):
        self.failures, self.written, self.threads = dict(failures or {}), {}, set()

    def _maybe_fail(self, stage, task):
        left = self.failures.get((stage, task.block.write.start[0] // 16), 0)
        if left:
            self.failures[stage, task.block.write.start[0] // 16] = left - 1
            raise OSError(f"{stage} went wrong")

    def read(self, task):
        self._maybe_fail("read", task)
        self.threads.add(threading.get_ident())
        return task.block.write.start[0]

    def compute(self, task, inputs):
        self._maybe_fail("compute", task)
        return inputs**2

    def write(self, task, outputs):
        self._maybe_fail("write", task)
        self.written[task.block.block_id] = outputs
        return {"checksum": str(outputs)}


def _worker(processor, tmp_path, **options):
    options = {"run_id": "this run"} | options
    return BlockWorker(lambda job: processor, [RunFolder(str(tmp_path))], **options)


@pytest.mark.parametrize("overlap", [False, True])
def test_every_task_is_written_and_has_a_receipt_and_no_mark_is_left(tmp_path, overlap):
    processor = Squares()
    receipts = _worker(processor, tmp_path, overlap=overlap).process(_tasks(5))
    stored = RunFolder(str(tmp_path)).read_receipts()
    assert processor.written == {f"img@{16 * n}-0": (16 * n) ** 2 for n in range(5)}
    assert set(stored.values()) == set(receipts)
    assert {receipt.status for receipt in receipts} == {"ok"}
    assert not RunFolder(str(tmp_path)).marks()
    assert (threading.get_ident() in processor.threads) is not overlap


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_two_failures_are_retried_and_a_third_is_recorded_without_stopping_the_others(tmp_path, stage, overlap):
    processor = Squares({(stage, 1): 2, (stage, 3): 3})
    receipts = _worker(processor, tmp_path, overlap=overlap).process(_tasks(5))
    by_row = {int(receipt.block_id.split("@")[1].split("-")[0]) // 16: receipt for receipt in receipts}
    assert [by_row[n].status for n in range(5)] == ["ok", "ok", "ok", "failed", "ok"]
    assert by_row[1].attempts == 3 and by_row[0].attempts == 1
    assert by_row[3].error == f"OSError: {stage} went wrong"
    assert "img@48-0" not in processor.written


def test_what_a_worker_out_of_sight_has_finished_is_not_repeated_by_the_next(tmp_path):
    tasks, second = _tasks(3), Squares()
    _worker(Squares(), tmp_path, run_id="this run").process(tasks[:2])  # no mark is left
    receipts = _worker(second, tmp_path, run_id="this run").process(tasks, is_repeated=True)
    assert set(second.written) == {tasks[2].block.block_id}
    assert {receipt.block_id for receipt in receipts} == {task.block.block_id for task in tasks}


@pytest.mark.parametrize("overlap", [False, True])
def test_a_worker_that_outlived_its_node_tells_of_no_failure_which_would_undo_what_others_have_done(tmp_path, overlap):
    worker = _worker(Squares({("read", 1): 3}), tmp_path, overlap=overlap, node="cut", node_is_alive=lambda node: False)
    with pytest.raises(ClusterError, match="cut was given up by the cluster"):
        worker.process(_tasks(3))
    folder = RunFolder(str(tmp_path))
    assert {receipt.status for receipt in folder.read_receipts().values()} <= {"ok"}
    assert folder.marks()  # of a lost node, so nobody's strike


def test_a_block_is_quarantined_after_three_deaths_of_its_worker_and_its_neighbours_are_done(tmp_path):
    folder, tasks = RunFolder(str(tmp_path)), _tasks(3)
    folder.mark([task.key for task in tasks], "node", "this run", batch_name(tasks))  # died with the whole batch
    for _ in range(2):  # then twice alone
        folder.mark([tasks[1].key], "node", "this run", batch_name(tasks))
    receipts = {receipt.block_id: receipt for receipt in _worker(Squares(), tmp_path).process(tasks)}
    assert receipts["img@16-0"].status == "quarantined"
    assert "died 3 times" in (receipts["img@16-0"].error or "")
    assert receipts["img@0-0"].status == receipts["img@32-0"].status == "ok"
    assert not folder.marks()


def test_deaths_of_a_lost_node_or_of_an_earlier_driver_are_nobodys_fault(tmp_path):
    folder, tasks = RunFolder(str(tmp_path)), _tasks(1)
    for _ in range(3):
        folder.mark([tasks[0].key], "lost node", "this run", batch_name(tasks))
        folder.mark([tasks[0].key], "node", "an earlier run", batch_name(tasks))
    worker = _worker(Squares(), tmp_path, node_is_alive=lambda node: node != "lost node")
    assert [receipt.status for receipt in worker.process(tasks)] == ["ok"]


def test_what_was_done_before_the_worker_died_is_not_done_again(tmp_path):
    folder, tasks = RunFolder(str(tmp_path)), _tasks(3)
    _worker(Squares(), tmp_path).process(tasks[:2])
    folder.mark([task.key for task in tasks], "node", "this run", batch_name(tasks))
    processor = Squares()
    receipts = _worker(processor, tmp_path).process(tasks)
    assert set(processor.written) == {"img@32-0"}
    assert {receipt.status for receipt in receipts} == {"ok"} and len(receipts) == 3


def test_what_was_done_before_a_node_was_lost_is_not_done_again(tmp_path):
    folder, tasks = RunFolder(str(tmp_path)), _tasks(2)
    _worker(Squares(), tmp_path).process(tasks[:1])
    folder.mark([task.key for task in tasks], "lost node", "this run", batch_name(tasks))
    processor = Squares()
    worker = _worker(processor, tmp_path, node_is_alive=lambda node: node == "node")
    assert len(worker.process(tasks)) == 2 and set(processor.written) == {"img@16-0"}
    assert not folder.marks()


def test_the_time_of_a_task_is_its_own(tmp_path):
    class Slow(Squares):
        def compute(self, task, inputs):
            time.sleep(0.05)
            return super().compute(task, inputs)

    began = time.perf_counter()
    receipts = _worker(Slow(), tmp_path).process(_tasks(8))
    assert sum(receipt.seconds for receipt in receipts) < 1.5 * (time.perf_counter() - began)
    assert all(receipt.seconds >= 0.05 for receipt in receipts)


def test_a_worker_looks_at_the_marks_of_its_own_batch_only(tmp_path, monkeypatch):
    folder, tasks = RunFolder(str(tmp_path)), _tasks(4)
    others = [folder.mark([task.key], "node", "this run", batch_name([task])) for task in tasks]  # are at work
    monkeypatch.setattr(files, "read_json", lambda path: pytest.fail(f"{path} was read"))
    assert len(_worker(Squares(), tmp_path).process(tasks)) == 4
    assert sorted(others) == folder.mark_files()
