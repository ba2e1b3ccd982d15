from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydom.errors import ConfigError, DataError
from raydom.storage import receipts, tables
from raydom.storage.receipts import Receipt, RunFolder, receipts_of


def _receipt(block_id, **fields):
    fields = {"kind": "block", "fingerprint": "f", "status": "ok", "attempts": 1, "finished_at": 1.0} | fields
    return Receipt(block_id=block_id, image_id="img", **fields)


def _compacted(folder):
    folder.compact()
    return folder.read_receipts()


def test_receipts_come_back_as_they_were_and_the_last_one_of_a_block_counts(tmp_path):
    folder = RunFolder(str(tmp_path))
    first = _receipt("a", status="failed", error="x", finished_at=1.0)
    second = _receipt("a", seconds=0.5, num_foreground_px=7, mean_confidence=0.75, record="{}", finished_at=2.0)
    folder.write_receipts([second])
    folder.write_receipts([first, _receipt("b")])
    assert folder.read_receipts() == {"block:a": second, "block:b": _receipt("b")}


def test_compaction_keeps_the_receipts_and_leaves_one_file(tmp_path):
    folder = RunFolder(str(tmp_path))
    for name in "abc":
        folder.write_receipts([_receipt(name)])
    before = folder.read_receipts()
    (kept,) = folder.compact().items()
    assert before == folder.read_receipts() and folder.receipt_files() == [kept[0]] and kept[1]
    assert dict([kept]) == folder.compact()  # which finds nothing to do


@pytest.fixture
def two_are_full(monkeypatch):
    """Files of two receipts are not put together with others."""
    monkeypatch.setattr(receipts, "FULL", 2)


def test_compaction_leaves_full_files_alone_and_notes_every_receipt_once(tmp_path, two_are_full):
    folder, noted = RunFolder(str(tmp_path)), []
    folder.write_receipts([_receipt(name) for name in "abcde"])
    full = folder.receipt_files()
    for name in "fgh":
        folder.write_receipts([_receipt(name)])
    before = folder.read_receipts()
    kept = folder.compact(note=lambda path, table: noted.extend(table["block_id"].to_pylist()))
    assert sorted(noted) == [*"abcdefgh"] and folder.read_receipts() == before
    assert set(full) < set(kept) and sorted(kept) == folder.receipt_files() and sorted(kept.values()) == [0, 0, 1]


@pytest.mark.parametrize("names", ["abc", "ab", "a"])
def test_files_in_many_pieces_are_put_together_whole_or_left_alone(tmp_path, two_are_full, names):
    folder = RunFolder(str(tmp_path))
    for name in names:
        folder.write_receipts([_receipt(name)])
    path, pieces = folder.receipt_files()[0], tables.read_table(folder.receipt_files()[0])
    several = pa.concat_tables([pieces, *(tables.read_table(other) for other in folder.receipt_files()[1:])])
    folder.write_receipts([_receipt(name) for name in "xyz"])
    pq.write_table(several, path, row_group_size=1)
    before = folder.read_receipts()
    folder.compact()
    assert folder.read_receipts() == before and len(before) == len(names) + 3


def test_of_receipts_of_one_block_compaction_keeps_the_last(tmp_path):
    folder = RunFolder(str(tmp_path))
    last = _receipt("a", finished_at=3.0)
    for receipt in (_receipt("a", finished_at=1.0), last, _receipt("b"), _receipt("a", finished_at=2.0), last):
        folder.write_receipts([receipt])
    folder.write_receipts([_receipt("a", kind="pair")])
    folder.compact()
    rows = [row for _, table in folder.receipt_tables(folder.receipt_files()) for row in receipts_of(table)]
    assert sorted(rows, key=str) == sorted([last, _receipt("b"), _receipt("a", kind="pair")], key=str)


@pytest.mark.parametrize("at", range(12))
def test_a_crash_at_any_point_of_a_compaction_loses_no_receipt(tmp_path, two_are_full, monkeypatch, at):
    class Crash(Exception):
        pass

    steps = iter(range(at))

    def step():
        if next(steps, None) is None:
            raise Crash

    def write_table(path, table):
        step()
        tables.write_table(path, table)
        step()

    def remove_files(paths):
        for path in paths:
            step()
            Path(path).unlink()

    folder = RunFolder(str(tmp_path))
    for name in "abcdef":
        folder.write_receipts([_receipt(name)])
    before = folder.read_receipts()
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(receipts, "write_table", write_table)
        patch.setattr(receipts.files, "remove_files", remove_files)
        folder.compact()
    assert folder.read_receipts() == before
    folder.compact()
    assert folder.read_receipts() == before


def test_receipts_of_earlier_versions_are_read_and_other_tables_are_damaged(tmp_path, caplog):
    folder = RunFolder(str(tmp_path))
    table = pa.table({"block_id": ["a"], "image_id": ["img"], "kind": ["block"], "fingerprint": ["f"]})
    old = table.append_column("status", [["ok"]]).append_column("attempts", [[1]])
    tables.write_table(str(tmp_path / "receipts" / "part-old.parquet"), old)
    assert folder.read_receipts() == {"block:a": _receipt("a", finished_at=0.0)} and not caplog.text
    tables.write_table(str(tmp_path / "receipts" / "part-other.parquet"), table)
    assert len(folder.read_receipts()) == 1 and "of its columns status, attempts is missing" in caplog.text


def test_a_reader_finds_what_is_put_together_while_it_reads(tmp_path, monkeypatch):
    folder = RunFolder(str(tmp_path))
    for name in "abc":
        folder.write_receipts([_receipt(name)])
    listed = RunFolder.receipt_files

    def then_compacted(self):
        paths = listed(self)
        monkeypatch.setattr(RunFolder, "receipt_files", listed)
        folder.compact()
        return paths

    monkeypatch.setattr(RunFolder, "receipt_files", then_compacted)
    assert sorted(folder.read_receipts(["a", "c"])) == ["block:a", "block:c"]


@pytest.mark.parametrize("content", [b"", b"PAR1 cut off", "flipped"])
def test_a_damaged_file_of_receipts_is_warned_of_and_set_aside_and_the_others_count(tmp_path, caplog, content):
    folder = RunFolder(str(tmp_path))
    folder.write_receipts([_receipt("a")])
    (whole,) = (tmp_path / "receipts").iterdir()
    if content == "flipped":  # one bit of the data: a page's checksum tells
        content = bytearray(whole.read_bytes())
        content[len(content) // 4] ^= 1
    bad = tmp_path / "receipts" / "part-bad.parquet"
    bad.write_bytes(content)
    assert list(folder.read_receipts()) == ["block:a"]
    assert bad.exists()  # a worker only reads
    folder.write_receipts([_receipt("b")])
    assert sorted(_compacted(folder)) == ["block:a", "block:b"]
    assert "1 files of receipts are damaged" in caplog.text and "part-bad.parquet" in caplog.text
    caplog.clear()
    assert sorted(_compacted(folder)) == ["block:a", "block:b"] and not caplog.text
    assert bad.with_name("part-bad.parquet.damaged").read_bytes() == content


@pytest.mark.parametrize("content", ["", '{"blocks": ["block:a"', "[]", '{"blocks": ["block:a"]}'])
def test_a_damaged_mark_of_a_worker_blames_no_block_and_can_be_removed(tmp_path, content, caplog):
    folder = RunFolder(str(tmp_path))
    mark = folder.mark(["block:a"], "node", "run", "batch")
    (tmp_path / "strikes" / "half.json").write_text(content)
    found = folder.marks()
    assert sorted(len(entry["blocks"]) for entry in found.values()) == [0, 1] and found[mark]["blocks"] == ["block:a"]
    assert "half.json" in caplog.text
    assert folder.mark_files("run", "batch") == folder.mark_files("run") == [mark] and not folder.mark_files("ru")
    folder.unmark(found)
    assert not folder.marks()


@pytest.mark.parametrize("content", ["", '{"style": {"me', "[1]"])
def test_damaged_settings_are_refused_with_both_remedies(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(DataError, match=r"settings\.json.*Remove this file if .*another --out"):
        RunFolder(str(tmp_path)).claim({"scale": None})


def test_other_settings_are_refused_and_each_change_is_named(tmp_path):
    folder = RunFolder(str(tmp_path))
    settings = {"style": {"method": "nst", "nst": {"steps": 75}}, "scale": None}
    folder.claim(settings)
    folder.claim(settings)
    with pytest.raises(ConfigError, match=r"style\.nst\.steps: was 75, now 150.*\n.*another --out"):
        folder.claim({"style": {"method": "nst", "nst": {"steps": 150}}, "scale": None})


def test_of_a_large_file_that_is_damaged_at_its_end_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("raydom.storage.receipts.FULL", 8)
    folder = RunFolder.of(str(tmp_path))
    folder.write_receipts([_receipt(f"a@{n}", node=f"node {n}") for n in range(24)])
    (path,) = folder.receipt_files()
    pq.write_table(pq.read_table(path), path, row_group_size=8, write_page_checksum=True)
    last = pq.read_metadata(path).row_group(2)
    column = next(last.column(n) for n in range(last.num_columns) if last.column(n).path_in_schema == "node")
    content = bytearray(Path(path).read_bytes())
    end = column.dictionary_page_offset + column.total_compressed_size
    content[end - 4 : end] = b"XXXX"
    Path(path).write_bytes(content)
    told = []
    assert folder.compact(note=lambda path, table: told.append(table)) == {} and told == []
    assert Path(f"{path}.damaged").is_file()
