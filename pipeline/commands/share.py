"""`python -m pipeline pack RUN|STUDY` and `unpack FILE|DIR`: runs as files to share, studies brought together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli import add_out
from pipeline.errors import UserError
from pipeline.records.store import SHORT_ID, RunRecord, RunStore

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
    unpacking.add_argument("--data-root", type=Path, metavar="DIR", help="where the runs' photos lie here")
    add_out(unpacking)
    unpacking.set_defaults(func=run_unpack)


def run_pack(args: argparse.Namespace) -> int:
    """`pack`: one file out of a record, or a folder of them out of a study."""
    from pipeline.runs.sharing import pack

    store = RunStore(args.out / "runs")
    if (args.out / args.what / "plan.json").is_file():
        return _pack_study(args, store)
    record = store.find(args.what)
    file = args.to or Path(_name(record))
    if file.suffix != ".zip":
        raise UserError(f"--to {file}: the name must end in .zip")
    pack(record, file, args.licence, args.without)
    print(f"packed: {file} ({_size(file)})")
    return 0


def run_unpack(args: argparse.Namespace) -> int:
    """`unpack`: records out of files."""
    from pipeline.runs.judges import SUFFIX, judges_of
    from pipeline.runs.sharing import unpack

    if args.data_root is not None and not args.data_root.is_dir():
        raise UserError(f"--data-root {args.data_root}: no such folder")
    files = [file for path in args.files for file in _packed(path)]
    packed = [file for file in files if not file.name.endswith(SUFFIX)]
    records = []
    for file in packed:
        records.append(unpack(file, RunStore(args.out / "runs"), args.data_root))
        print(f"record: {records[-1].path}")
    judges = judges_of(records, args.out / "cache") if len(packed) < len(files) else {}
    for file in files:
        if file.name.endswith(SUFFIX):
            print(_taken(file, judges.get(file.name)))
    return 0


def _taken(file: Path, judge: Judge | None) -> str:
    """Take a segmenter; what came of it, in a line."""
    from pipeline.runs.judges import unpack_judge

    if judge is None:
        return f"segmenter left out: {file.name} judges none of these runs by the photos that are here"
    if unpack_judge(file, judge):
        return f"segmenter: {judge.path}"
    return (
        f"segmenter left out: another one is at {judge.path}; what each has judged stands apart. To go on with the packed one, "
        "remove that file and unpack again"
    )


def _pack_study(args: argparse.Namespace, store: RunStore) -> int:
    """Every finished run of the plan; those that are not finished are counted, so that nobody takes a part for the whole."""
    from pipeline.records import StudyManifest
    from pipeline.runs.judges import judges_of, pack_judge
    from pipeline.runs.sharing import pack

    folder = args.to or Path(Path(args.what).name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--to {folder}: a study is packed into a folder, one file for each run")
    planned = dict.fromkeys(cell.run_id for cell in StudyManifest.load(args.out / args.what).cells)
    records = [store.record(run_id) for run_id in planned]
    finished = [record for record in records if record.state == "finished"]
    if not finished:
        raise UserError(f"study {args.what} has no finished run: nothing to pack")
    files = [folder / _name(record) for record in finished]
    for record, file in zip(finished, files, strict=True):
        pack(record, file, args.licence, args.without)
    judges = [pack_judge(judge, folder) for judge in judges_of(finished, args.out / "cache").values()]
    files += [file for file in judges if file is not None]
    left = f"; not finished yet: {len(records) - len(finished)}" if len(finished) < len(records) else ""
    print(f"packed: {len(finished)} runs of {args.what} in {folder} ({_size(*files)}){left}")
    return 0


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
