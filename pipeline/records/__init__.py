"""The run store: what every command writes and every table reads. Never imports torch."""

from pipeline.records.manifest import Arm, Cell, StudyManifest, StudyMetric
from pipeline.records.rows import METRIC_STATUSES, MetricRow
from pipeline.records.store import RUN_STATES, SCHEMA_VERSION, RunRecord, RunStore

__all__ = [
    "METRIC_STATUSES",
    "RUN_STATES",
    "SCHEMA_VERSION",
    "Arm",
    "Cell",
    "MetricRow",
    "RunRecord",
    "RunStore",
    "StudyManifest",
    "StudyMetric",
]
