"""Hardware as data: accelerators and runtimes that networks are made for."""

from penjing.targets.find import find, names

__all__ = ["find", "names"]
