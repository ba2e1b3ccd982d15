"""raydom pack as a job: ``python jobs/pack.py --config jobs/pack.yaml``, or through ``ray job submit``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["pack", *sys.argv[1:]]))
