"""The documented columns of the frames: name -> (dtype, meaning). `docs/analysis.md` repeats this list.

A test compares them.
"""

from __future__ import annotations

import io

import pandas as pd

FRAME_SCHEMA = 1  # raised whenever a column changes its name, type or meaning

FRAME: dict[str, tuple[str, str]] = {
    "schema": ("Int64", "version of this list of columns"),
    "study": ("string", "name of the study"),
    "arm": ("string", "stable key of the arm"),
    "arm_label": ("string", "what tables print for the arm"),
    "reference": ("boolean", "whether the arm is the one others are compared with"),
    "seed": ("Int64", "run seed; runs of different arms are paired by it"),
    "run_id": ("string", "full id of the run record"),
    "run_state": ("string", "planned, running, finished, failed, diverged, preempted, pruned, missing or damaged"),
    "kind": (
        "string",
        "trained, rule (no learning), released (authors' weights), external (pictures of other code) or imported",
    ),
    "metric": ("string", "name of the metric"),
    "value": ("Float64", "the number; empty unless status is ok"),
    "n": ("Int64", "images (or pairs, or steps) behind the value"),
    "unit": ("string", "unit, empty for pure numbers"),
    "direction": ("string", "max, min or none: which way is better"),
    "split": ("string", "train, val, test, or empty where no images are involved"),
    "protocol": ("string", "name of the evaluation protocol"),
    "fingerprint": ("string", "digest of everything that defines the metric; one per table column"),
    "state": ("string", "trained or untrained (the same network before its first step)"),
    "status": ("string", "ok, unavailable, not_applicable, invalid (not finite) or missing (no row recorded)"),
    "reason": ("string", "why there is no value"),
}

PROVENANCE_NUMBERS = ("wall_seconds", "device_seconds", "params", "flops_per_image", "images_seen", "peak_mem_gib")

RUNS: dict[str, tuple[str, str]] = {
    **{name: FRAME[name] for name in ("study", "arm", "arm_label", "reference", "seed", "run_id", "run_state", "kind")},
    "run_reason": ("string", "why the run did not finish, or what is damaged in its record"),
    "attempts": ("Int64", "how often the run was started"),
    "budget_images": ("Int64", "training images the plan grants the run"),
    "commit": ("string", "code version the run was made with"),
    "dirty": ("boolean", "whether the code had uncommitted changes"),
    "code_digest": ("string", "digest of the sources themselves, where recorded"),
    "torch": ("string", "version of torch"),
    "device": ("string", "device the run was made on"),
    "data_digest": ("string", "fingerprint of the training data"),
    "data_description": ("string", "the data in words"),
    "wall_seconds": ("Float64", "time the run took"),
    "device_seconds": ("Float64", "time the device was in use"),
    "params": ("Float64", "parameters of the generator"),
    "flops_per_image": ("Float64", "floating point operations of one generated image"),
    "images_seen": ("Float64", "training images the run has seen"),
    "peak_mem_gib": ("Float64", "peak memory in GiB"),
}

# What else `analysis keep` writes of the records' files.
VALUES: dict[str, tuple[str, str]] = {
    "run_id": FRAME["run_id"],
    "key": ("string", "test image, or pair of images of an edit"),
    "metric": FRAME["metric"],
    "value": ("Float64", "the image's own value"),
    "split": FRAME["split"],
    "fingerprint": FRAME["fingerprint"],
}
CURVES: dict[str, tuple[str, str]] = {
    **{name: FRAME[name] for name in ("arm", "seed", "run_id")},
    "iteration": ("Int64", "updates before the validation"),
    "metric": FRAME["metric"],
    "value": ("Float64", "on the validation images"),
}

IMPORTED: dict[str, tuple[str, str]] = {
    "label": ("string", "what tables print for the row"),
    "kind": ("string", "published (printed elsewhere) or imported (runs logged elsewhere)"),
    "metric": ("string", "name of the metric"),
    "value": ("Float64", "the number"),
    "std": ("Float64", "its standard deviation, where the source gives one"),
    "n": ("Int64", "seeds behind it, where the source says"),
    "unit": ("string", "unit"),
    "seed": ("Int64", "run seed, for imported runs"),
    "run": ("string", "which of several runs of one source it is, where the source has repeats"),
    "data": ("string", "data set, matched to the column groups of tables by data set"),
    "protocol": ("string", "evaluation protocol, as far as the source says"),
    "split": ("string", "split, as far as the source says"),
    "source": ("string", "where the number comes from"),
    "reference_id": ("string", "run or row it was read from"),
    "group": ("string", "heading its rows stand under, empty for none"),
    "caveat": ("string", "why it cannot be compared with what was measured here, where that is known"),
    "decimals": ("Int64", "digits its source prints after the point, where that is known"),
}


def typed(frame: pd.DataFrame, documented: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """The frame with the documented (nullable) types."""
    return frame.astype({name: dtype for name, (dtype, _) in documented.items()})


def encoded(frame: pd.DataFrame, suffix: str) -> bytes:
    """A frame as the bytes of a .parquet or .csv file; parquet carries the documented meaning of the columns."""
    buffer = io.BytesIO()
    if suffix == ".csv":
        frame.to_csv(buffer, index=False, lineterminator="\n")
        return buffer.getvalue()
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    meanings = {**VALUES, **CURVES, **RUNS, **FRAME}
    fields = [
        field.with_metadata({"description": meanings[field.name][1]}) if field.name in meanings else field
        for field in table.schema
    ]
    pq.write_table(table.cast(pa.schema(fields, metadata=table.schema.metadata)), buffer, compression="zstd")
    return buffer.getvalue()
