"""raydom compare as a job: ``python jobs/compare.py --config jobs/compare.yaml``, or through ``ray job submit``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
