"""The shell in a process of its own, hurried as the tests' own runs are: ``python -m quick VERB ...``."""

import sys
from pathlib import Path

from penjing import cli

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from fuzzing import stage


def main() -> None:
    """Run the verb that the command line names."""
    from penjing.steps import spending

    with stage.quickly():
        spending.SECONDS = 0.0
        cli.main()


if __name__ == "__main__":
    main()
