"""Hardware as data: accelerators and runtimes that networks are made for."""

from penjing.targets.find import default, find, names

__all__ = ["default", "find", "names"]
