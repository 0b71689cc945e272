"""``python -m penjing.cli``."""

from penjing.cli import main

main()
