"""Let the folder be run as a script, beside the other benchmarks, whose rows it shares."""

import sys
from pathlib import Path


def main() -> None:
    """Put the folder of all benchmarks in the place of this one, and run."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from papers.command import main as command

    command()


if __name__ == "__main__":
    main()
