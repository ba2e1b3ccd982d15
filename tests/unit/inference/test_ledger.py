"""What a driver knows of its tasks, from their receipts."""

import dataclasses
import tracemalloc

import pytest

from raydom.inference import ledger as ledgers
from raydom.inference.job import BlockJob, JobPlan
from raydom.inference.ledger import Ledger
from raydom.inference.tasks import Cut, Tasks
from raydom.storage.receipts import Receipt


def _plan(tmp_path, shape=(64, 96), size=32):
    job = BlockJob(name="job", collection=str(tmp_path / "in"), out=str(tmp_path / "out"))
    cuts = {"block": [Cut(0, "block", "a", shape, size, "f"), Cut(0, "block", "b", (20, 20), size, "g")]}
    cuts["finish"] = [Cut(0, "finish", "a", shape, max(shape), "f")]
    return JobPlan(job, {}, {kind: Tasks(cuts[kind]) for kind in cuts}), job.folder


def _receipt(task, finished_at=1.0, **fields):
    identity = {"block_id": task.block.block_id, "image_id": task.block.image_id, "kind": task.kind}
    told = {"fingerprint": task.fingerprint, "status": "ok", "attempts": 1, "seconds": 2.0} | fields
    return Receipt(**identity, finished_at=finished_at, **told)


def _looked(plan):
    ledger = Ledger(plan)
    ledger.look()
    return ledger


def test_a_stage_has_to_be_done_where_all_before_it_is_done(tmp_path):
    plan, folder = _plan(tmp_path)
    blocks, ledger = plan.stages["block"], Ledger(plan)
    assert list(ledger.to_do("block")) == list(blocks) and not len(ledger.to_do("finish")) and ledger.num_unknown == 8
    folder.write_receipts([_receipt(task) for task in blocks[:5]])
    ledger.look()
    assert list(ledger.to_do("block")) == list(blocks[5:]) and not len(ledger.to_do("finish"))
    folder.write_receipts([_receipt(blocks[5]), _receipt(blocks[6], status="failed")])
    ledger.look()
    assert ledger.is_ok("block").tolist() == [True] * 6 + [False] and not len(ledger.to_do("block"))
    assert list(ledger.to_do("finish")) == list(plan.stages["finish"]) and ledger.num_unknown == 1
    assert not len(ledger.to_do("pair")) and len(folder.receipt_files()) == 2


def test_the_last_receipt_of_this_recipe_counts_in_whatever_order_they_are_read(tmp_path):
    plan, folder = _plan(tmp_path)
    task, other, third = plan.stages["block"][:3]
    later = [_receipt(task, 3.0), _receipt(other, 3.0, status="failed")]
    folder.write_receipts([*later, _receipt(third, fingerprint="another recipe")])
    folder.write_receipts([_receipt(task, 2.0, status="failed"), _receipt(other, 2.0)])
    folder.write_receipts([dataclasses.replace(_receipt(task, 9.0), kind="seam")])  # which is of no task
    for _ in range(2):  # as workers wrote them, and in one file
        ledger = _looked(plan)
        assert ledger.is_ok("block").tolist() == [True] + [False] * 6
        assert ledger.is_known("block").tolist() == [True, True] + [False] * 5
        (told,) = [(numbers.tolist(), table["finished_at"].to_pylist()) for numbers, table in ledger.receipts()]
        assert told == ([0, 1], [3.0, 3.0])


@pytest.mark.parametrize("order", [1, -1])
def test_an_image_that_was_another_meanwhile_is_done_again(tmp_path, order):
    plan, folder = _plan(tmp_path)
    blocks, ledger = plan.stages["block"], Ledger(plan)
    changed = [_receipt(task, 2.0, fingerprint="changed") for task in blocks[:2]]  # of a run that was killed then
    for receipts in [[_receipt(task) for task in blocks], changed][::order]:
        folder.write_receipts(receipts)
        ledger.look()
    for one in (ledger, None, None):  # as they were written, and in one file
        one = one or _looked(plan)
        assert one.is_ok("block").tolist() == [False] * 6 + [True]
        assert [numbers.tolist() for numbers, _ in one.receipts() if len(numbers)] == [[6]]
    folder.write_receipts([_receipt(task, 3.0) for task in blocks[:2]])
    for _ in range(2):  # the others are not there, whatever was told of them once
        assert _looked(plan).is_ok("block").tolist() == [True] * 2 + [False] * 4 + [True]
    folder.write_receipts([_receipt(task, 4.0) for task in blocks[2:6]])
    assert _looked(plan).is_ok("block").all()


def test_a_receipt_that_is_there_twice_counts_once(tmp_path):
    plan, folder = _plan(tmp_path)
    ledger = Ledger(plan)
    for _ in range(2):
        folder.write_receipts([_receipt(task) for task in plan.stages["block"]])
        ledger.look()
    assert sum(len(numbers) for numbers, _ in ledger.receipts()) == 7 and len(folder.receipt_files()) == 2


def test_failures_that_are_forgotten_are_done_again_whatever_is_read_of_them_later(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "MANY_SMALL", 1)  # all files are put together, and so read, again
    plan, folder = _plan(tmp_path)
    blocks = plan.stages["block"]
    folder.write_receipts([_receipt(blocks[0]), _receipt(blocks[1], 5.0, status="quarantined")])
    ledger = _looked(plan)
    ledger.forget_failures()
    folder.write_receipts([_receipt(blocks[2])])
    ledger.look()
    assert ledger.is_known("block").tolist() == [True, False, True] + [False] * 4
    folder.write_receipts([_receipt(blocks[1], 4.0)])  # of a machine whose clock is late
    ledger.look()
    assert ledger.is_ok("block").tolist() == [True] * 3 + [False] * 4
    assert len(folder.receipt_files()) == 1


def test_files_stay_few_while_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "MANY_FILES", 8)
    monkeypatch.setattr(ledgers, "MANY_SMALL", 4)
    monkeypatch.setattr(ledgers, "LOOK_EVERY_S", 0.0)
    plan, folder = _plan(tmp_path, shape=(32, 32 * 100))
    ledger, counts = Ledger(plan), []
    for task in plan.stages["block"]:
        folder.write_receipts([_receipt(task)])
        ledger.tidy()
        counts.append(len(folder.receipt_files()))
    ledger.look()
    assert max(counts) <= 8 + 4 + 1 and ledger.is_ok("block").all()
    assert len(folder.read_receipts()) == 101


def test_a_task_and_its_receipt_take_few_bytes_of_the_driver(tmp_path):
    count = 20_000
    plan, folder = _plan(tmp_path, shape=(32, 32 * count))
    for start in range(0, count, 2000):
        folder.write_receipts([_receipt(task, node="n" * 56) for task in plan.stages["block"][start : start + 2000]])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ledger = _looked(plan)
    to_do = ledger.to_do("block")
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(to_do) == 1  # of the other image
    assert (held - before) / count < 16, held
    assert (most - before) / count < 600, most  # while the receipts of one file are looked at


def test_at_the_end_small_files_are_one(tmp_path):
    plan, folder = _plan(tmp_path)
    ledger = Ledger(plan)
    for task in plan.stages["block"]:
        folder.write_receipts([_receipt(task)])
        ledger.look()
    assert len(folder.receipt_files()) == 7
    ledger.look(at_end=True)
    left = folder.receipt_files()
    assert len(left) == 1 and len(folder.read_receipts()) == 7
    ledger.look(at_end=True)
    assert folder.receipt_files() == left and ledger.is_ok("block").all()
