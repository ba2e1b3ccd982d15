import pytest

from raydom.errors import ConfigError, DataError
from raydom.storage.receipts import Receipt, RunFolder


def _receipt(block_id, **fields):
    fields = {"kind": "block", "fingerprint": "f", "status": "ok", "attempts": 1, "finished_at": 1.0} | fields
    return Receipt(block_id=block_id, image_id="img", **fields)


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
    assert folder.compact() == before == folder.read_receipts()
    assert len(list((tmp_path / "receipts").iterdir())) == 1


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
    assert sorted(folder.compact()) == ["block:a", "block:b"]
    assert "1 files of receipts are damaged" in caplog.text and "part-bad.parquet" in caplog.text
    caplog.clear()
    assert sorted(folder.compact()) == ["block:a", "block:b"] and not caplog.text
    assert bad.with_name("part-bad.parquet.damaged").read_bytes() == content


@pytest.mark.parametrize("content", ["", '{"blocks": ["block:a"', "[]", '{"blocks": ["block:a"]}'])
def test_a_damaged_mark_of_a_worker_blames_no_block_and_can_be_removed(tmp_path, content, caplog):
    folder = RunFolder(str(tmp_path))
    mark = folder.mark(["block:a"], "node", "run")
    (tmp_path / "strikes" / "half.json").write_text(content)
    found = folder.marks()
    assert sorted(len(entry["blocks"]) for entry in found.values()) == [0, 1] and found[mark]["blocks"] == ["block:a"]
    assert "half.json" in caplog.text
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
