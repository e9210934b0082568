"""The server: who gets in, what it computes, what it refuses with one line; through the real command and real requests."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import threading
import urllib.parse
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.__main__ import main
from pipeline.config import from_yaml
from pipeline.data import build_dataset
from pipeline.data.batch import collate, image_array
from pipeline.editing.truth import renderer_of
from pipeline.paint.uploads import MAX_BYTES
from pipeline.records import RunRecord
from pipeline.runs.checkpoint import finished_run
from tests.pipeline.paint.conftest import Served, serving
from tests.pipeline.paint.scenes import ask, body, png, told, unpacked
from tests.pipeline.paint.scenes import pictures as drawn
from tests.pipeline.tiny import run

SIDE = 16
SKIN, HAIR = 1, 13


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


SMALL = png(np.zeros((8, 8), dtype=np.uint8))
# A few kilobytes of text that unpack to 100 MB.
WITH_A_BOMB = SMALL[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)) + SMALL[33:]


@pytest.fixture(scope="module")
def faces(served: Served):  # type: ignore[no-untyped-def]
    return build_dataset(from_yaml(served.runs[0].config_yaml).data, "test")


def refused(served: Served, path: str, data: bytes) -> str:
    """The one line of a refusal."""
    status, answer, _ = served.ask(path, data)
    assert status == 400, answer
    line = json.loads(answer)["error"]
    assert "\n" not in line and "/tmp" not in line and "Traceback" not in line
    return str(line)


# -- who gets in -------------------------------------------------------------------------------------------------------------


def test_without_the_token_there_is_nothing(served: Served) -> None:
    base, token = served.address.rstrip("/").rsplit("/", 1)
    assert len(token) >= 20
    for wrong in ("/", "/facts", "/paint.js", f"/{token[:-1]}/", f"/{token}x/facts"):
        outside = Served(served.out, served.runs, base + wrong)
        status, data, _ = outside.ask("")
        assert status == 404 and token.encode() not in data
    assert served.ask("")[0] == 200


def test_it_listens_on_loopback_alone_and_for_loopbacks_names_alone(served: Served) -> None:
    """A name that someone else resolves to 127.0.0.1 must not reach it (DNS rebinding)."""
    port = urllib.parse.urlsplit(served.address).port
    assert port is not None
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", port)) != 0
    assert served.ask("facts", Host="evil.example")[0] == 400
    assert served.ask("facts", Host=f"localhost:{port}")[0] == 200


def test_the_page_may_load_from_and_talk_to_itself_alone(served: Served) -> None:
    status, page, headers = served.ask("")
    policy = headers["content-security-policy"]
    assert (
        status == 200 and "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
    )
    assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
    assert b"http://" not in page and b"https://" not in page


# -- what it computes ----------------------------------------------------------------------------------------------------------


def test_an_untouched_sample_is_the_run_s_reconstruction(served: Served, faces: Any) -> None:
    answer = drawn(served, ask(faces[2].label, styles=("sample:2",)))
    assert answer["number"] == 1 and len(answer["pictures"]) == 2
    for record, picture in zip(served.runs, answer["pictures"], strict=True):
        _, generator, _, _ = finished_run(served.out, record.id)
        batch = collate([faces[2]], faces.label_space.num_classes)
        with torch.no_grad():
            style = generator.encode_style(batch.image, batch.mask)
            torch.manual_seed(0)  # the recipe's: SEAN draws noise in every pass
            expected = image_array(generator.synthesize(batch.mask, style, attention=False).image)[0]
        assert np.array_equal(unpacked(picture["pixels"], SIDE, SIDE, 3), expected)
    assert np.array_equal(unpacked(answer["truth"], SIDE, SIDE, 3), faces[2].image)


def test_the_true_edit_has_each_class_from_its_photo_under_the_first_one_s_light(served: Served, faces: Any) -> None:
    label = faces[0].label.copy()
    label[:4] = HAIR
    answer = drawn(served, ask(label, styles=("sample:0", "sample:3"), classes={"hair": 1}))
    renderer = renderer_of(faces)
    assert renderer is not None
    expected = renderer.painted(label, 0, {HAIR: 3})
    assert not np.array_equal(expected, renderer.painted(label, 0, {}))
    assert np.array_equal(unpacked(answer["truth"], SIDE, SIDE, 3), expected)
    outside = label != HAIR
    assert np.array_equal(expected[outside], renderer.painted(label, 0, {})[outside]), "nothing else changes"
    error = unpacked(answer["pictures"][0]["pixels"], SIDE, SIDE, 3) / 255 - expected / 255
    assert answer["pictures"][0]["psnr"] == pytest.approx(-10 * np.log10(np.mean(error**2)), abs=0.05)


@pytest.mark.parametrize("recipe", [{"towards": 1, "position": 0.5}, {"noise": 0.5}])
def test_what_lies_between_two_styles_has_no_true_edit(served: Served, faces: Any, recipe: dict[str, Any]) -> None:
    answer = drawn(served, ask(faces[0].label, styles=("sample:0", "sample:1"), **recipe))
    assert answer["truth"] is None and "no one right picture" in answer["truth_reason"]
    assert answer["pictures"][0]["psnr"] is None


def test_a_family_says_what_it_leaves_out(served: Served, faces: Any) -> None:
    with_noise = drawn(served, ask(faces[0].label, noise=0.5))
    assert with_noise["pictures"][0]["notes"] == ["without noise: the family does not sample styles"]
    assert with_noise["pictures"][0]["pixels"] == drawn(served, ask(faces[0].label))["pictures"][0]["pixels"]


def test_attention_at_a_pixel_is_the_softmax_over_classes_at_each_level(served: Served, faces: Any) -> None:
    answer = told(served, "attention", {**ask(faces[0].label), "run": 0, "x": 9, "y": 5})
    _, generator, _, _ = finished_run(served.out, served.runs[0].id)
    batch = collate([faces[0]], faces.label_space.num_classes)
    maps = generator.synthesize(batch.mask, generator.encode_style(batch.image, batch.mask)).attention
    assert [level["level"] for level in answer["levels"]] == [str(level.shape[-2]) for level in maps]
    for level, logits in zip(answer["levels"], maps, strict=True):
        shares = logits[0, :, 5 * logits.shape[2] // SIDE, 9 * logits.shape[3] // SIDE].softmax(dim=0)
        assert level["shares"] == pytest.approx(sorted(shares.tolist(), reverse=True)[:5], abs=2e-4)
        assert level["classes"][0] == int(shares.argmax())
    assert "no attention" in refused(served, "attention", body({**ask(faces[0].label), "run": 1, "x": 0, "y": 0}))


def test_what_waits_behind_a_newer_request_is_dropped_and_the_newest_is_drawn(served: Served, faces: Any) -> None:
    """Twenty at once, as from an impatient page: the last always wins, and not all of the others are drawn."""
    answers: dict[int, dict[str, Any]] = {}

    def send(number: int) -> None:
        label = np.full((SIDE, SIDE), number % 19, dtype=np.uint8)
        answers[number] = drawn(served, {**ask(label, number=number), "page": "impatient"})

    threads = [threading.Thread(target=send, args=(number,)) for number in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = drawn(served, ask(np.full((SIDE, SIDE), 20 % 19, dtype=np.uint8)))
    assert answers[20]["pictures"][0]["pixels"] == last["pictures"][0]["pixels"]
    dropped = [number for number, answer in answers.items() if answer.get("overtaken")]
    assert dropped and 20 not in dropped
    stale = drawn(served, {**ask(faces[0].label, number=3), "page": "impatient"})
    assert stale == {"number": 3, "overtaken": True, "pictures": []}
    look = told(served, "attention", {**ask(faces[0].label, number=3), "page": "impatient", "run": 0, "x": 0, "y": 0})
    assert look == {"number": 3, "overtaken": True}


# -- what it refuses -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "AAAA"}, "label has 3 pixels, not 16x16"),
        ({"label": "no base64!"}, "label is not base64"),
        ({"styles": ["sample:99"]}, "there are sample:0 to sample:3"),
        ({"styles": ["../../etc/passwd"]}, "style photo"),
        ({"recipe": {}}, "recipe.base"),
        ({"extra": 1}, "extra"),
        ({"page": "../x"}, "page"),
    ],
)
def test_a_request_that_is_wrong_is_refused_with_one_line(
    served: Served, faces: Any, change: dict[str, Any], said: str
) -> None:
    assert said in refused(served, "pictures", body({**ask(faces[0].label), "final": True, **change}))


def test_unknown_classes_and_places_are_refused(served: Served, faces: Any) -> None:
    for scene, said in (
        (ask(faces[0].label, classes={"hiar": 0}), "hiar"),
        (ask(faces[0].label, base=4), "style photo 4, and there are 1"),
        (ask(np.full((SIDE, SIDE), 19, dtype=np.uint8)), "holds class 19"),
    ):
        assert said in refused(served, "pictures", body({**scene, "final": True}))
    assert "not JSON" in refused(served, "pictures", b"{")
    assert "not JSON" in refused(served, "pictures", b"[" * 200_000), "deeper than a parser goes"
    for name in (f"sample:{'9' * 5000}", "sample:-1", "upload:0x", ""):
        status, data, _ = served.ask(f"photo?name={name}")
        assert status == 400 and b"style photo" in data
    status, data = style(served, b"photo", bytes="9" * 5000)
    assert status == 400 and "is not a length within 5" in data["error"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("map.png", png(np.full((8, 8), 77, dtype=np.uint8)), "map.png: label ids 77 are not ids of celebamask_hq"),
        ("map.png", png(np.zeros((8, 8, 3), dtype=np.uint8)), "map.png: label map has pixel mode RGB (colours)"),
        ("map.png", b"GIF89a nothing", "map.png: label map cannot be read: its content is no image"),
        ("map.png", png(np.zeros((64, 64), dtype=np.uint8))[:40], "map.png: label map cannot be read"),
        (
            "map.png",
            png(np.zeros((8, 8), dtype=np.uint8), "TIFF"),
            "map.png: label map is TIFF, whatever its extension says",
        ),
        ("map.png", WITH_A_BOMB, "map.png: label map cannot be read"),
        (f"{'ä' * 100}.png", b"", "is not the name of a file"),
        ("map.gif", b"", "map.gif: label map must be a file .png"),
        ("../map.png", b"", "is not the name of a file"),
        ("map.png", bytes(MAX_BYTES + 1), "map.png: label map has 20.0 MB; at most 20 are taken"),
        ("map.png", png(np.zeros((7000, 7000), dtype=np.uint8)), "at most 40 megapixels"),
    ],
)
def test_a_label_map_is_checked_as_a_data_set_s_file(served: Served, name: str, data: bytes, said: str) -> None:
    assert said in refused(served, f"label?{urllib.parse.urlencode({'name': name})}", data)


def test_a_label_map_comes_in_at_the_size_of_the_pictures(served: Served) -> None:
    large = np.kron(np.arange(4, dtype=np.uint8).reshape(2, 2), np.ones((40, 40), dtype=np.uint8))
    status, data, _ = served.ask("label?name=map.png", png(large))
    assert status == 200
    assert np.array_equal(unpacked(json.loads(data)["label"], SIDE, SIDE), large[::5, ::5])


def style(served: Served, photo: bytes, rest: bytes = b"", **said: str) -> tuple[int, dict[str, Any]]:
    query = {"name": "me.png", "bytes": str(len(photo)), "label": "file", "label_name": "me_map.png", **said}
    status, data, _ = served.ask(f"style?{urllib.parse.urlencode(query)}", photo + rest)
    return status, json.loads(data)


def test_an_uploaded_photo_brings_its_label_map_or_takes_another(served: Served, faces: Any) -> None:
    photo = png(np.full((40, 40, 3), 90, dtype=np.uint8))
    own = png(np.full((40, 40), SKIN, dtype=np.uint8))
    status, said = style(served, photo, own)
    assert status == 200 and said["key"] == "me.png"
    assert (unpacked(said["label"], SIDE, SIDE) == SKIN).all() and (unpacked(said["pixels"], SIDE, SIDE, 3) == 90).all()
    answer = drawn(served, ask(faces[0].label, styles=(said["name"],)))
    assert answer["truth"] is None and "uploaded" in answer["truth_reason"]
    _, other = style(served, photo, label="sample:1")
    assert np.array_equal(unpacked(other["label"], SIDE, SIDE), faces[1].label)
    _, painted = style(served, photo, ask(faces[2].label)["label"].encode(), label="painted")
    assert np.array_equal(unpacked(painted["label"], SIDE, SIDE), faces[2].label)


@pytest.mark.parametrize(
    ("photo", "label", "said"),
    [
        (png(np.zeros((40, 40, 3), dtype=np.uint8)), png(np.zeros((40, 80), dtype=np.uint8)),
         "me.png is 40x40 but its label map me_map.png is 80x40: not one picture's shape"),
        (b"not a photo", png(np.zeros((40, 40), dtype=np.uint8)), "me.png: photo cannot be read: its content is no image"),
        (png(np.zeros((40, 40, 3), dtype=np.uint8)), b"", "me_map.png: label map cannot be read"),
    ],
)  # fmt: skip
def test_a_bad_style_photo_is_refused_with_the_words_of_a_data_set(
    served: Served, photo: bytes, label: bytes, said: str
) -> None:
    status, answer = style(served, photo, label)
    assert status == 400 and said in answer["error"] and "/" not in answer["error"]


# -- the command -----------------------------------------------------------------------------------------------------------------


def test_runs_that_cannot_share_a_map_are_refused_at_the_start(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run(served.out, "size=24", "model=painter")
    first = served.runs[0].id[:10]
    taken = urllib.parse.urlsplit(served.address).port
    for words, line in (
        (
            (first, other.id[:10]),
            f"runs {first} and {other.id[:10]} differ in size: one label map cannot be painted for both",
        ),
        ((first,) * 5, "5 runs are more than fit side by side; name at most 4"),
        ((first, "--port", "70000"), "--port must be 0 to 65535, not 70000"),
        ((first, "--port", str(taken)), f"cannot listen on 127.0.0.1:{taken}: Address already in use"),
        (("ffff",), "ffff"),
    ):
        assert main(["paint", *words, "--out", str(served.out)]) == 2
        said = capsys.readouterr().err
        assert line in said and said.startswith("error: ") and said.count("\n") == 1


def test_a_run_that_is_gone_since_is_still_drawn_and_a_full_disk_is_one_line(
    runs: tuple[Path, tuple[RunRecord, ...]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(runs[0] / "runs", out / "runs")
    scene = ask(np.zeros((SIDE, SIDE), dtype=np.uint8))
    with serving(out, runs[1][:1]) as here:
        before = drawn(here, scene)
        shutil.rmtree(out)
        assert drawn(here, scene)["pictures"][0]["pixels"] == before["pictures"][0]["pixels"]
        out.write_text("in the way of every folder")
        status, answer, _ = here.ask("save", body(scene))
    said = json.loads(answer)["error"]
    assert status == 500 and "Not a directory" in said and "\n" not in said


def test_a_server_that_is_killed_leaves_nothing_behind(
    runs: tuple[Path, tuple[RunRecord, ...]], tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    before = sorted(path for path in runs[0].rglob("*") if "edits" not in path.parts)
    with serving(*runs, TMPDIR=str(tmp_path / "temporary"), killed=True) as here:
        assert (
            style(here, png(np.zeros((40, 40, 3), dtype=np.uint8)), png(np.zeros((40, 40), dtype=np.uint8)))[0] == 200
        )
        assert len(drawn(here, ask(np.zeros((SIDE, SIDE), dtype=np.uint8)))["pictures"]) == 2
    assert list((tmp_path / "temporary").iterdir()) == []
    assert sorted(path for path in runs[0].rglob("*") if "edits" not in path.parts) == before
