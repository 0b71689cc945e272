"""The shell in a process of its own, hurried as the tests' own runs are: ``python -m quick VERB ...``."""

import sys
from pathlib import Path

from penjing.cli import app

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from fuzzing import stage  # noqa: E402

if __name__ == "__main__":
    from penjing.steps import spending

    with stage.quickly():
        spending.SECONDS = 0.0
        app()
