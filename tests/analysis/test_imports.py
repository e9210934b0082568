"""Numbers that other code has measured, through `import-csv` and `import-wandb`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.__main__ import main
from analysis.commands.import_wandb import read_project
from analysis.frame import load_study
from pipeline.errors import UserError
from tests.analysis.synthetic import TWO, make_study

PUBLISHED = (
    'label,metric,value,std,n,unit,source\nSEAN (paper),psnr,25.5,,,dB,"CVPR 2020, table 1"\n'
    "SEAN (paper),fid,17.66,,,,CVPR 2020\nSPADE (paper),psnr,21.0,0.2,3,dB,CVPR 2019\n"
)


def test_published_numbers_stand_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path, arms=TWO)
    (tmp_path / "papers.csv").write_text(PUBLISHED)
    assert main(["import-csv", "synthetic", str(tmp_path / "papers.csv"), "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["table", "synthetic", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("| *")]
    assert lines[0].startswith("| *From elsewhere* |")
    assert lines[1].startswith("| *SEAN (paper)*<sup>a</sup> | 25.50 |  |")
    assert lines[2].startswith("| *SPADE (paper)*<sup>b</sup> | 21.00 ± 0.20 |")
    assert "<sup>a</sup> published number, not measured here: CVPR 2020, table 1; CVPR 2020" in text
    assert "**25.50**" not in text  # never ranked, although it is the largest
    (tmp_path / "papers.csv").write_text(PUBLISHED.replace("25.5", "25.6"))  # again: replaced, not doubled
    assert main(["import-csv", "synthetic", str(tmp_path / "papers.csv"), "--out", str(tmp_path)]) == 0
    assert len(load_study(tmp_path, "synthetic").imported) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,metric,value\nA,psnr,1\n", "column 'source' is missing"),
        ("label,metric,value,source,unitt\n", r"unknown column 'unitt' \(did you mean unit"),
        ("label,metric,value,source\nA,psnr,many,B\n", "line 2: value = 'many' is not a number"),
        ("label,metric,value,source\nA,psnr,nan,B\n", "line 2: value = nan is not finite"),
        ("label,metric,value,source\nA,psnr,1,\n", "line 2: source is empty"),
        ("label,metric,value,source,n\nA,psnr,1,B,0.5\n", "line 2: n = 0.5 is not a number of seeds"),
        (
            "label,metric,value,source\nA,psnr,22,5,B\n",
            "line 2: has more cells than columns; quote a text that holds a comma",
        ),
        ("label,metric,value,source,label\nA,psnr,22,B,A\n", "column 'label' stands there twice"),
        ("label,metric,value,source,std\nA,psnr,22,B,-3\n", "line 2: std = -3 is negative"),
        ('label,metric,value,source\nA,psnr,1,"two\nlines"\nB,psnr,many,C\n', "line 4: value = 'many' is not a number"),
        ("label,metric,value,source\n", "holds no numbers"),
        ("", "column 'label' is missing"),
    ],
)
def test_a_wrong_csv_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    from analysis.commands.import_csv import read_csv

    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_csv(path, "published")


class FakeApi:
    """Stands for wandb.Api: a list of runs, or an error."""

    def __init__(self, *runs: SimpleNamespace, error: Exception | None = None) -> None:
        self.found, self.error, self.calls = list(runs), error, 0

    def runs(self, path: str) -> list[SimpleNamespace]:
        self.calls += 1
        if self.error is not None:
            raise self.error
        assert path == "lab/sean"
        return self.found


def logged(name: str, seed: int, value: object, state: str = "finished") -> SimpleNamespace:
    summary = {"val/psnr": value, "nested": {"ssim": 0.5}}
    return SimpleNamespace(
        id=f"{name}{seed}", name=name, state=state, config={"seed": seed, "model": {"name": name}}, summary=summary
    )


def test_wandb_summaries_of_finished_runs_are_read() -> None:
    api = FakeApi(
        logged("sean", 0, 24.0), logged("sean", 1, 25.0), logged("sean", 2, 99.0, "crashed"), logged("sean", 3, "NaN")
    )
    rows, skipped = read_project(
        "lab/sean", {"psnr": "val/psnr", "ssim": "nested.ssim"}, label_key="model.name", api=lambda: api
    )
    assert [(row["label"], row["seed"], row["metric"], row["value"]) for row in rows] == [
        ("sean", 0, "psnr", 24.0),
        ("sean", 0, "ssim", 0.5),
        ("sean", 1, "psnr", 25.0),
        ("sean", 1, "ssim", 0.5),
        ("sean", 3, "ssim", 0.5),
    ]
    assert skipped == ["run sean2 is crashed", "run sean3: summary has no finite number 'val/psnr'"]


@pytest.mark.parametrize(
    ("api", "message"),
    [
        (FakeApi(logged("sean", 0, 1.0), logged("sean", 0, 2.0)), "are both 'sean' at seed 0"),
        (FakeApi(logged("sean", 0, 1.0, "running")), "has no number to import: run sean0 is running"),
        (FakeApi(), "lab/sean has no number to import"),
        (FakeApi(error=ConnectionError("no route\nto host")), "cannot read lab/sean from W&B: no route to host"),
    ],
)
def test_wandb_trouble_is_one_line(api: FakeApi, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_project("lab/sean", {"psnr": "val/psnr"}, api=lambda: api)


def test_wandb_is_read_once_and_then_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path, arms=TWO, seeds=(0,))
    api = FakeApi(logged("sean", 0, 24.0), logged("sean", 1, 26.0))
    monkeypatch.setattr("analysis.commands.import_wandb._client", lambda: api)
    words = ["import-wandb", "synthetic", "lab/sean", "--metric", "psnr=val/psnr", "--out", str(tmp_path)]
    assert main(words) == 0
    assert main(words) == 0
    assert api.calls == 1
    assert "are cached (--refresh reads them again)" in capsys.readouterr().out
    assert main([*words, "--refresh"]) == 0
    assert main([*words[:-2], "--metric", "ssim=nested.ssim", *words[-2:]]) == 0  # another request is another import
    assert api.calls == 3
    capsys.readouterr()
    assert main(["table", "synthetic", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "25.0" in text
    assert "logged by other code, not measured here: W&amp;B lab/sean" in text


@pytest.mark.parametrize("rows", ['["text"]', '[{"label": "A", "metric": "psnr", "value": "many", "source": "B"}]'])
def test_an_import_that_was_changed_by_hand_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str
) -> None:
    make_study(tmp_path, arms=TWO)
    (tmp_path / "synthetic" / "imported").mkdir()
    (tmp_path / "synthetic" / "imported" / "papers.json").write_text(f'{{"schema": 1, "rows": {rows}}}')
    assert main(["table", "synthetic", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "import it again" in error
