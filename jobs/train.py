"""raydom train as a job: ``python jobs/train.py dann --config jobs/train-dann.yaml``, or by ``ray job submit``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
