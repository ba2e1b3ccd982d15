"""raydom domains as a job: ``python jobs/domains.py --config jobs/domains.yaml``, or through ``ray job submit``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["domains", *sys.argv[1:]]))
