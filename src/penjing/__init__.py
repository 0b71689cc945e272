"""A trained CNN and a hardware budget go in; a smaller, proved, re-measured, exported CNN comes out."""

__version__ = "0.1.0"
