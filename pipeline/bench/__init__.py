"""Benchmarks: what a training step, feeding, evaluation, starting and reading cost on this machine."""
