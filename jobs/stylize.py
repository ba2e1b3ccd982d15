"""raydom stylize as a job: ``python jobs/stylize.py --config jobs/stylize.yaml``, or through ``ray job submit``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["stylize", *sys.argv[1:]]))
