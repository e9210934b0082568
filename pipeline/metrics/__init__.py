"""Metrics as functions of images; every metric's unit, direction and version stand in `pipeline.records.metric_specs`."""
