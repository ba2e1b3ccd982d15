"""raydom ingest as a job: ``python jobs/ingest.py --config jobs/ingest.yaml``, or through ``ray job submit``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["ingest", *sys.argv[1:]]))
