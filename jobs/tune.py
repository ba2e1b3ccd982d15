"""raydom tune as a job: ``python jobs/tune.py style --config jobs/tune-style.yaml``, or by ``ray job submit``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
