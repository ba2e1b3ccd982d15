import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from raydom.networks.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(40):
    if step == 20:
        before = faults()
    torch.ones(64 * 2**20 // 4).add(1)
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_freed_memory_is_used_again_without_new_pages():
    default, kept = (
        int(subprocess.run([sys.executable, "-c", SCRIPT, how], check=True, capture_output=True).stdout)
        for how in ("default", "keep")
    )
    assert default > 1000  # 64 MiB, which glibc never keeps by itself, twice a step: pages of 4 KiB, or of 2 MiB
    assert kept < default / 4  # small objects between the arrays may cost a few of them their place, and new pages
