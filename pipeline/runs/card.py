"""The model card of a packed run: README.md in Hugging Face's format (YAML front matter with a model-index, then prose)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import yaml

from pipeline.records import MetricRow, RunRecord
from pipeline.records.store import SHORT_ID
from pipeline.schema.families import family_of
from pipeline.schema.run import RunConfig

KIND_WORDS = {
    "trained": "trained with this project",
    "rule": "a rule without parameters",
    "released": "the authors' released weights, evaluated with this project",
    "external": "pictures made by other code, evaluated with this project: there are no weights",
}


def model_card(record: RunRecord, config: RunConfig, licence: str, without: Collection[str]) -> str:
    """The card of a finished run. `licence`: an identifier of Hugging Face's list; "unknown" where nobody has said one."""
    family, summary = family_of(config.model), str(record.provenance["data"]["summary"])
    kind = record.status["kind"]
    rows = [row for row in record.metrics if row.state == "trained" and row.value is not None]
    head = {
        "license": licence,
        "library_name": "ca2sis-lab",
        "pipeline_tag": "image-to-image",
        "tags": ["semantic-image-synthesis", family, kind],
        "model-index": [{"name": f"{family}-{record.id[:SHORT_ID]}", "results": _results(rows, config, summary)}],
    }
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=120)
    height, width = config.data.hw
    lines = [
        f"# {family}, {width}x{height}, run {record.id[:SHORT_ID]}",
        "",
        f"Semantic image synthesis: a label map and a style photo go in, a photo comes out. This run is {KIND_WORDS[kind]}.",
        "",
        f"- Run id (sha256 of `identity.json`): `{record.id}`",
        f"- Data: {summary}; fingerprint `{record.provenance['data']['digest']}`",
        f"- Classes: {', '.join(record.provenance['data']['class_names'])}",
        f"- Code: {record.provenance.get('commit') or record.provenance.get('code_digest')}",
        f"- Licence: {licence}",
        "",
        "## How to load",
        "",
        "```bash",
        f"python -m pipeline unpack {record.id[:SHORT_ID]}.zip",
        "```",
        "",
        *_use(record, without),
        "",
        "## Metrics",
        "",
        "Two numbers are the same measurement where their fingerprints agree.",
        "",
        "| metric | value | unit | n | split | protocol | fingerprint |",
        "| --- | ---: | --- | ---: | --- | --- | --- |",
        *(
            f"| {row.name} | {row.value:.6g} | {row.unit} | {row.n} | {row.split} | {row.protocol} | `{row.fingerprint[:16]}` |"
            for row in rows
        ),
    ]
    return f"---\n{front}---\n\n" + "\n".join(lines) + "\n"


def _use(record: RunRecord, without: Collection[str]) -> list[str]:
    if "weights" in without:
        return ["The weights were left out: it stands in tables, curves and claims, and makes no pictures."]
    return [
        "```python",
        "from pipeline import load_run",
        "",
        f'run = load_run("{record.id[:SHORT_ID]}")',
        "run.reconstruct(photo, label)  # PIL images or arrays",
        "```",
    ]


def _results(rows: list[MetricRow], config: RunConfig, summary: str) -> list[dict[str, Any]]:
    """The model-index: one result a split and protocol, each metric with its fingerprint."""
    groups: dict[tuple[str, str], list[MetricRow]] = {}
    for row in rows:
        groups.setdefault((row.split, row.protocol), []).append(row)
    return [
        {
            "task": {"type": "image-to-image", "name": "semantic image synthesis"},
            "dataset": {"name": summary, "type": config.data.name, **({"split": split} if split else {})},
            "metrics": [
                {
                    "type": row.name,
                    "value": row.value,
                    "args": {"protocol": protocol, "fingerprint": row.fingerprint, "n": row.n, "unit": row.unit},
                }
                for row in of_group
            ],
        }
        for (split, protocol), of_group in groups.items()
    ]
