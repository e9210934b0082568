"""Metrics: one module a group; every metric's unit, direction and version stand in `pipeline.metrics.registry`."""
