"""raydom segment as a job: ``python jobs/segment.py --config jobs/segment.yaml``, or through ``ray job submit``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["segment", *sys.argv[1:]]))
