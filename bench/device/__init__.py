"""One command for a machine with a GPU: ``bench/device/run.sh``."""
