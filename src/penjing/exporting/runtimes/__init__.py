"""The runtimes that latency is measured on, a file each, registered by name."""
