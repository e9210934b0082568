"""`python -m pipeline pack RUN|STUDY` and `unpack FILE|DIR`: runs as files to share, studies brought together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli import add_out
from pipeline.errors import UserError
from pipeline.records.store import SHORT_ID, RunRecord, RunStore
from pipeline.schema.files import find_folder

if TYPE_CHECKING:
    from pipeline.runs.judges import Judge


def register(subparsers: Any) -> None:
    """Add the commands to the sub-parsers of `python -m pipeline`."""
    from pipeline.runs.archive import PARTS

    packing = subparsers.add_parser(
        "pack",
        help="a finished run as one file: record, weights, config, model card; or all runs of a study",
        description="Write a finished run as one archive: record, weights (safetensors), config, and a model card (README.md in\n"
        "Hugging Face's format); of a study, one archive for each of its finished runs, and the segmenter that judged\n"
        "them. Paths and hosts of this machine are left out. The same run gives the same bytes.",
    )
    packing.add_argument("what", metavar="RUN|STUDY", help="id of a finished run, or its beginning; or a study's name")
    packing.add_argument(
        "--to",
        type=Path,
        metavar="FILE.zip|DIR",
        help="default: the beginning of the id, .zip; of a study a folder of its name",
    )
    packing.add_argument(
        "--without", nargs="+", choices=PARTS, default=(), metavar="PART",
        help="leave out weights, pictures, or both: tables, curves and claims need neither",
    )  # fmt: skip
    packing.add_argument(
        "--licence", default="unknown", metavar="ID", help="of the weights, for the model card (default: unknown)"
    )
    add_out(packing)
    packing.set_defaults(func=run_pack)
    unpacking = subparsers.add_parser(
        "unpack",
        help="take packed runs into the output folder",
        description="Take packed runs into OUT/runs, and the segmenters that judged them into OUT/cache. The files are not\n"
        "trusted: nothing in them is executed, nothing is written elsewhere, and each must be what its run id says.",
    )
    unpacking.add_argument("files", type=Path, nargs="+", metavar="FILE.zip|DIR", help="what `pack` has written")
    unpacking.add_argument(
        "--data-root", type=Path, action="append", default=[], metavar="DIR",
        help="where the runs' photos lie here; of several data sets repeat it: each run gets the folder that holds its own",
    )  # fmt: skip
    add_out(unpacking)
    unpacking.set_defaults(func=run_unpack)


def run_pack(args: argparse.Namespace) -> int:
    """`pack`: one file out of a record, or a folder of them out of a study."""
    from pipeline.runs.sharing import pack

    out, name = find_folder(args.what, args.out)
    if (out / name / "plan.json").is_file():
        return _pack_study(args, out, name)
    record = RunStore(args.out / "runs").find(args.what)
    file = args.to or Path(_name(record))
    if file.suffix != ".zip":
        raise UserError(f"--to {file}: the name must end in .zip")
    pack(record, file, args.licence, args.without)
    print(f"packed: {file} ({_size(file)})")
    return 0


def _pack_study(args: argparse.Namespace, out: Path, name: str) -> int:
    """Every finished run of the plan; those that are not finished are counted, so that nobody takes a part for the whole."""
    from pipeline.records import StudyManifest
    from pipeline.runs.checkpoint import has_weights
    from pipeline.runs.judges import judges_of, pack_judge
    from pipeline.runs.sharing import WITH_WEIGHTS, pack, parts_left_out

    folder = args.to or Path(name)
    if folder.suffix == ".zip" or (folder.exists() and not folder.is_dir()):
        raise UserError(f"--to {folder}: {name} is a study, and is packed into a folder, one file for each run")
    store = RunStore(out / "runs")
    planned = dict.fromkeys(cell.run_id for cell in StudyManifest.load(out / name).cells)
    records = [record for record in map(store.record, planned) if record.state == "finished"]
    if not records:
        raise UserError(f"study {name} has no finished run: nothing to pack")
    without = {
        record.id: parts_left_out(record, args.without) for record in records
    }  # all are looked at before one is written
    bare = [record for record in records if record.status["kind"] in WITH_WEIGHTS and not has_weights(record)]
    for record in bare:
        without[record.id].add("weights")
    files = [folder / _name(record) for record in records]
    for record, file in zip(records, files, strict=True):
        pack(record, file, args.licence, without[record.id])
    judges, absent = judges_of(records, out / "cache")
    made = [pack_judge(judge, folder) for judge in judges.values()]
    files += filter(None, made)
    print(f"packed: {len(records)} runs of {name} in {folder} ({_size(*files)})")
    if len(records) < len(planned):
        print(f"not finished, hence not packed: {len(planned) - len(records)}")
    if bare and "weights" not in args.without:
        print(f"packed without weights, which are not here: {', '.join(record.id[:SHORT_ID] for record in bare)}")
    if None in made:
        print(
            "without a segmenter that judged them: it is not in the cache; what is measured elsewhere will stand apart"
        )
    if absent:
        print(
            f"without the segmenter that judged {absent} of them: their photos are not here, or too many to look through"
        )
    return 0


def run_unpack(args: argparse.Namespace) -> int:
    """`unpack`: records out of files, then the segmenters that came with them."""
    from pipeline.config import from_yaml
    from pipeline.runs.judges import SUFFIX, judges_of
    from pipeline.runs.sharing import unpack

    for root in args.data_root:
        if not root.is_dir():
            raise UserError(f"--data-root {root}: no such folder")
    store = RunStore(args.out / "runs")
    files = [file for path in args.files for file in _packed(path)]
    judging = [file for file in files if file.name.endswith(SUFFIX)]
    elsewhere = 0
    for file in files:
        if file not in judging:
            record = unpack(file, store, args.data_root)
            print(f"record: {record.path}")
            elsewhere += from_yaml(record.config_yaml).data.root is None
    if len(args.data_root) > 1 and elsewhere:
        print(f"photos in none of the folders of --data-root: those of {elsewhere} of {len(files) - len(judging)} runs")
    judges: dict[str, Judge] = {}
    if judging:
        finished = [record for record in map(store.record, store.ids()) if record.state == "finished"]
        judges = judges_of(finished, args.out / "cache")[0]
    for file in judging:
        print(_taken(file, judges.get(file.name)))
    beside = {path for file in files for path in file.parent.glob(f"*{SUFFIX}")} - set(judging)
    if beside:
        print(
            f"not asked for: {', '.join(sorted(map(str, beside)))}, which judged such runs; name the folder, or the file too"
        )
    return 0


def _taken(file: Path, judge: Judge | None) -> str:
    """Take a segmenter; what came of it, in a line."""
    from pipeline.runs.judges import unpack_judge

    if judge is None:
        return f"segmenter left out: {file.name} judges no run here by the photos that are here (--data-root names where they lie)"
    if unpack_judge(file, judge):
        return f"segmenter: {judge.path}"
    return (
        f"segmenter left out: another one is at {judge.path}; what each has judged stands apart. To go on with the packed one, "
        "remove that file and unpack again"
    )


def _packed(path: Path) -> list[Path]:
    """The file itself, or what a folder holds of packed runs and their segmenters, by name."""
    from pipeline.runs.judges import SUFFIX

    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.zip"))
    if not found:
        raise UserError(f"{path} holds no packed run (*.zip)")
    return found + sorted(path.glob(f"*{SUFFIX}"))


def _name(record: RunRecord) -> str:
    return f"{record.id[:SHORT_ID]}.zip"


def _size(*files: Path) -> str:
    return f"{sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"
