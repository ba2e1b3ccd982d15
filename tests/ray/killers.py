"""What kills the process that runs it: style methods and an ingestion; imported by the workers."""

import os
import signal
import time
from pathlib import Path


def open_mortal(job, device):
    """The processor of a job that kills its worker at the first block, and at the first labels of objects."""
    from raydom.inference.predictor import Predictor

    return _mortal(Predictor, ("block", "label"))(job, device)


def open_mortal_neurons(job, device):
    """The processor of a neuron job that kills its worker at the first superpixels, and at the first graph."""
    from raydom.inference.neuron_stages import NeuronProcessor

    return _mortal(NeuronProcessor, ("block", "graph"))(job, device)


def _mortal(processor, kinds):
    """A processor that kills its process before the first task of each of these kinds is written."""

    class Mortal(processor):
        def write(self, task, outputs):
            if task.kind in kinds:
                try:
                    os.close(os.open(f"{self.job.out}-{task.kind}", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().write(task, outputs)

    return Mortal


def open_together(job, device):
    """The processor of a job whose blocks are only written when two workers are at them at the same time."""
    from raydom.inference.predictor import Predictor

    class Together(Predictor):
        def write(self, task, outputs):
            folder = Path(f"{job.out}-together")
            folder.mkdir(exist_ok=True)
            (folder / str(os.getpid())).touch()
            deadline = time.monotonic() + 10
            while len(list(folder.iterdir())) < 2:
                if time.monotonic() > deadline:
                    raise RuntimeError("alone")
                time.sleep(0.05)
            return super().write(task, outputs)

    return Together(job, device)


def on_white(content, style, config, generator):
    """Kills its worker at every block that is all white."""
    if content.pixels.min() == 1.0:
        os.kill(os.getpid(), signal.SIGKILL)
    return content.pixels


on_white.pointwise = True


def open_on_cpu(job, device):
    """The processor of a job in a worker that was given a GPU, which is not there."""
    from raydom.inference.predictor import Predictor

    assert device == "cuda" and os.environ["CUDA_VISIBLE_DEVICES"]
    return Predictor(job, "cpu")


def read_or_die(task):
    """Ingests a file. Its worker is killed by ``b-always`` each time, by ``a-once`` when half its image is written."""
    from raydom.ingestion.file import ingest_file

    outcome = ingest_file(task)
    group = Path(task.config.out) / outcome.records[0].uri
    if task.image_id == "b-always":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.image_id == "a-once" and not (group.parent / "marker").exists():
        (group.parent / "marker").touch()
        (group / "0/c/0/0/0").unlink()
        (group / "0/c/0/0/.0.partial").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome


def read_alone(task):
    """Ingests a file, unless another one is being ingested."""
    from raydom.ingestion.file import IngestOutcome, Refusal, ingest_file

    marker = Path(task.config.out) / "at-work"
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        refusal = Refusal(source_file=task.source, label_file=None, error_type="NotAlone", error=task.source)
        return IngestOutcome(task=task, refusal=refusal)
    try:
        time.sleep(0.1)
        return ingest_file(task)
    finally:
        marker.unlink()
