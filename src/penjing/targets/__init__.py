"""Hardware as data: accelerators and runtimes that networks are made for."""
