"""A style method that takes its time and ends its driver when told; shipped with jobs, and imported by workers."""

import os
import signal
import time
import uuid
from pathlib import Path


def slow(content, style, config, generator):
    """Leaves pixels as they are, and a file ``begun-*`` beside the style image for each block.

    With a file ``kill`` there, the third block kills its process; with a file ``driver``, which holds the number of a
    process, the third block tells that one to stop.
    """
    folder = Path(config.style).parent
    (folder / f"begun-{uuid.uuid4().hex}").touch()
    if len(list(folder.glob("begun-*"))) >= 3:
        if (folder / "kill").exists():
            (folder / "kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if (folder / "driver").exists():
            pid = int((folder / "driver").read_text())
            (folder / "driver").unlink(missing_ok=True)
            os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)
    return content.pixels


slow.pointwise = True
