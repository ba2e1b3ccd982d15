"""Style methods that kill the process that runs them; imported by the workers."""

import os
import signal


def once(content, style, config, generator):
    """Kills its worker the first time that one comes by."""
    try:
        os.close(os.open(config.nst.weights, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        pass
    else:
        os.kill(os.getpid(), signal.SIGKILL)
    return content.pixels


def on_white(content, style, config, generator):
    """Kills its worker at every block that is all white."""
    if content.pixels.min() == 1.0:
        os.kill(os.getpid(), signal.SIGKILL)
    return content.pixels


once.pointwise = on_white.pointwise = True
