"""raydom evaluate as a job: ``python jobs/evaluate.py --config jobs/evaluate.yaml``, or through ``ray job submit``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
