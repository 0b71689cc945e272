"""The shell: verbs, their options, what completes, and how errors end."""

from penjing.cli.verbs import app, main

__all__ = ["app", "main"]
