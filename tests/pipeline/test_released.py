"""Released weights become records; files that are not plain tensors are refused and nothing in them runs."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from pipeline.models.interop import load_release
from pipeline.records import RunStore
from pipeline.runs import checkpoint
from pipeline.runs.released import extract_network, import_release, read_tensors
from tests.pipeline.models.release_fill import load_meta, shrunk
from tests.pipeline.models.scam_cases import filled
from tests.pipeline.tiny import command

FACES = ("data.train_images=4", "data.val_images=4", "data.test_images=4", "tracking.mode=disabled", "size=64")


def sean_file(folder: Path) -> Path:
    path = folder / "latest_net_G.pth"
    torch.save(shrunk(load_meta("sean")["keys"]), path)
    return path


def test_a_release_becomes_a_record_that_evaluates_like_any_other(tmp_path: Path) -> None:
    file, out = sean_file(tmp_path), tmp_path / "out"
    imported = command("pipeline", "weights", "import", "sean", str(file), *FACES, "--out", str(out))
    assert imported.returncode == 0, imported.stderr
    (run_id,) = RunStore(out / "runs").ids()
    record = RunStore(out / "runs").record(run_id)
    assert (record.state, record.status["kind"]) == ("finished", "released")
    assert record.provenance["released"]["file"] == "latest_net_G.pth"
    generator, _ = checkpoint.load_generator(record, torch.device("cpu"))
    reference = load_release("sean", read_tensors(file)[0])
    for name, value in reference.state_dict().items():
        assert torch.equal(generator.state_dict()[name], value), name
    again = command("pipeline", "weights", "import", "sean", str(file), *FACES, "--out", str(out))
    assert again.returncode == 0 and RunStore(out / "runs").ids() == [run_id]
    evaluated = command("pipeline", "evaluate", run_id[:10], "--protocol", "quick", "--out", str(out))
    assert evaluated.returncode == 0, evaluated.stderr
    psnr = [row for row in record.metrics if row.name == "psnr"]
    assert len(psnr) == 1 and psnr[0].value is not None and psnr[0].value > 0


def test_a_framework_checkpoint_of_all_networks_becomes_a_record(tmp_path: Path) -> None:
    """SCAM's: generator, encoder and discriminator in one state dict, beside counters."""
    state = {f"net.generator.{key}": value for key, value in filled("G", (19, 1, 1)).items()}
    state |= {f"net.encoder.{key}": value for key, value in filled("E", (19, 1, 1)).items()}
    torch.save({"epoch": 3, "state_dict": state | {"net.judge.weight": torch.zeros(2)}}, tmp_path / "last.ckpt")
    record = import_release("scam", tmp_path / "last.ckpt", None, FACES, RunStore(tmp_path / "runs"))
    generator, _ = checkpoint.load_generator(record, torch.device("cpu"))
    assert record.state == "finished" and generator.num_classes == 19
    own = generator.state_dict()["encoder.latents"]
    assert torch.equal(own, state["net.encoder.latents"]) and tuple(own.shape) == (19, 64)
    torch.save({"state_dict": {"weight": "none"}}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match="something other than a state dict of tensors"):
        read_tensors(tmp_path / "bad.ckpt")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "pwned",))  # type: ignore[return-value]

    file = tmp_path / "latest_net_G.pth"
    file.write_bytes(pickle.dumps({"weight": Malicious()}))
    refused = command("pipeline", "weights", "import", "sean", str(file), "--out", str(tmp_path / "out"))
    assert refused.returncode == 2 and "refused: it is not a file of plain tensors" in refused.stderr
    assert not (tmp_path / "pwned").exists() and not (tmp_path / "out").exists()


def test_one_network_of_a_checkpoint_with_a_namespace_is_taken_out_and_imported(tmp_path: Path) -> None:
    """SemanticStyleGAN's checkpoints: networks, optimisers, and the command line as an `argparse.Namespace`."""
    state = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}
    file, target = tmp_path / "checkpoint.pt", tmp_path / "g_ema.pth"
    whole = {
        "g": {"weight": torch.ones(1)},
        "g_ema": state,
        "g_optim": {"state": {}},
        "args": argparse.Namespace(size=512, ckpt=None),
    }
    torch.save(whole, file)
    refused = command("pipeline", "weights", "import", "semanticstylegan", str(file), "--out", str(tmp_path / "out"))
    assert refused.returncode == 2 and "python -m pipeline weights convert" in refused.stderr
    taken = command("pipeline", "weights", "convert", str(file), str(target))
    assert taken.returncode == 0 and "2 tensors of g_ema" in taken.stdout, taken.stderr
    read, _ = read_tensors(target)
    assert set(read) == set(state) and all(torch.equal(read[name], value) for name, value in state.items())
    missing = command("pipeline", "weights", "convert", str(file), str(target), "--network", "g_emma")
    assert missing.returncode == 2 and "no network 'g_emma' (did you mean g_ema" in missing.stderr


def test_the_converter_lets_nothing_else_through(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "pwned",))  # type: ignore[return-value]

    for number, hidden in enumerate((Malicious(), argparse.Namespace(ckpt=Malicious()), Path("x"))):
        file = tmp_path / f"{number}.pt"
        torch.save({"g_ema": {"weight": torch.ones(1)}, "args": hidden}, file, pickle_module=pickle)
        with pytest.raises(UserError, match="is refused: it is not a checkpoint of plain tensors"):
            extract_network(file, "g_ema", tmp_path / "out.pth", [argparse.Namespace])
    assert not (tmp_path / "pwned").exists() and not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(("content", "said"), [(b"not a checkpoint", "is refused"), (None, "cannot read")])
def test_an_unreadable_file_is_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "latest_net_G.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=said):
        import_release("sean", file, None, FACES, RunStore(tmp_path / "runs"))


def test_weights_for_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    state = shrunk(load_meta("sean")["keys"])
    file = tmp_path / "g.pth"
    torch.save({key: value for key, value in state.items() if ".fc_mu18." not in key}, file)
    with pytest.raises(UserError):
        import_release("sean", file, None, FACES, RunStore(tmp_path / "runs"))
