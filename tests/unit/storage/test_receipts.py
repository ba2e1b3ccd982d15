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


def test_a_corrupt_file_of_receipts_is_named_with_the_remedy(tmp_path):
    folder = RunFolder(str(tmp_path))
    folder.write_receipts([_receipt("a")])
    (tmp_path / "receipts" / "part-bad.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match=r"part-bad\.parquet.*Remove it"):
        folder.read_receipts()


def test_other_settings_are_refused_and_each_change_is_named(tmp_path):
    folder = RunFolder(str(tmp_path))
    settings = {"style": {"method": "nst", "nst": {"steps": 75}}, "scale": None}
    folder.claim(settings)
    folder.claim(settings)
    with pytest.raises(ConfigError, match=r"style\.nst\.steps: was 75, now 150.*\n.*another --out"):
        folder.claim({"style": {"method": "nst", "nst": {"steps": 150}}, "scale": None})
