"""raydom synthesize as a job: ``python jobs/synthesize.py --config jobs/synthesize.yaml``, or by ``ray job submit``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["synthesize", *sys.argv[1:]]))
