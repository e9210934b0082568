"""Benchmarks: what a training step, feeding, evaluation, starting, studies and reading them cost on this machine."""
