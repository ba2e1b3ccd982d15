"""raydom neurons as a job: ``python jobs/neurons.py segment --config jobs/neurons-segment.yaml``."""

import sys

from raydom.cli import main

if __name__ == "__main__":
    sys.exit(main(["neurons", *sys.argv[1:]]))
