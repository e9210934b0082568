"""Launching runs: one process a run, on this machine or through Slurm. Never imports torch in the launching process."""
