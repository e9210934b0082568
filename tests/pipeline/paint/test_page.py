"""The paint page in a real headless Chromium: mouse, touch and keyboard; what one paints is what the runs draw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.__main__ import main
from tests.browser import CHROMIUM, CONTRAST, Browser, browser
from tests.pipeline.paint.conftest import Served
from tests.pipeline.paint.scenes import ask, body, unpacked
from tests.pipeline.paint.scenes import pictures as drawn

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")

SIDE = 16
SETTLED = "document.body.dataset.state === 'settled'"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(chromium: Browser, served: Served) -> Iterator[Browser]:
    """The page, freshly opened; whatever a test does must leave the console silent and ask this server alone."""
    chromium.open(served.address, width=1280, height=1000)
    chromium.wait(SETTLED)
    yield chromium
    refused = [line for line in chromium.console if "400" not in line]  # the browser notes every refusal it was given
    assert refused == []
    assert all(request.startswith(served.address) for request in chromium.requests)


def pixels(page: Browser, canvas: str) -> NDArray[np.uint8]:
    """(H,W,3) of a canvas."""
    values = page.evaluate(
        f"[...document.getElementById('{canvas}').getContext('2d').getImageData(0, 0, {SIDE}, {SIDE}).data]"
    )
    return np.asarray(values, dtype=np.uint8).reshape(SIDE, SIDE, 4)[..., :3]


def pictures(page: Browser) -> list[NDArray[np.uint8]]:
    page.wait(SETTLED)
    return [pixels(page, f"picture-{index}") for index in (0, 1)]


def painted_label(page: Browser, served: Served) -> NDArray[np.uint8]:
    """(H,W) classes of the map, read off its colours."""
    colours = {tuple(colour): k for k, colour in enumerate(json.loads(served.ask("facts")[1])["palette"])}
    return np.asarray(
        [[colours[tuple(pixel)] for pixel in row] for row in pixels(page, "map").tolist()], dtype=np.uint8
    )


def choose(page: Browser, name: str) -> None:
    page.click(f"#classes button[title='{name}']")


def said(page: Browser, element: str) -> str:
    return str(page.evaluate(f"document.getElementById('{element}').textContent"))


def test_a_stroke_changes_the_map_and_both_pictures_to_what_the_runs_make_of_it(page: Browser, served: Served) -> None:
    before = pictures(page)
    choose(page, "hat")
    page.drag("#map", [(0.1, 0.15), (0.5, 0.15), (0.9, 0.15)])
    after = pictures(page)
    label = painted_label(page, served)
    assert (label[2, 2:14] == 14).all()
    expected = drawn(served, ask(label))
    for index in (0, 1):
        assert not np.array_equal(before[index], after[index])
        assert np.array_equal(after[index], unpacked(expected["pictures"][index]["pixels"], SIDE, SIDE, 3))
    assert np.array_equal(pixels(page, "truth"), unpacked(expected["truth"], SIDE, SIDE, 3))
    words = page.evaluate("document.querySelector('#run-0 .numbers').textContent")
    assert words.startswith(f"{expected['pictures'][0]['psnr']:.2f} dB to the true edit")
    assert said(page, "latency").startswith("Stroke to picture ")


def test_undo_and_redo_bring_states_back_by_button_and_key(page: Browser) -> None:
    start, pictured = pixels(page, "map"), pictures(page)
    choose(page, "hair")
    page.drag("#map", [(0.3, 0.3), (0.7, 0.7)])
    stroke = pixels(page, "map")
    page.click("#tool-fill")
    page.drag("#map", [(0.02, 0.98)])
    filled = pixels(page, "map")
    assert not np.array_equal(stroke, filled)
    page.click("#undo")
    assert np.array_equal(pixels(page, "map"), stroke)
    page.press("z", control=True)
    assert np.array_equal(pixels(page, "map"), start)
    assert all(np.array_equal(one, other) for one, other in zip(pictures(page), pictured, strict=True))
    assert page.evaluate("document.getElementById('undo').disabled")
    page.click("#redo")
    page.press("y", control=True)
    assert np.array_equal(pixels(page, "map"), filled)


def test_fill_and_pick(page: Browser, served: Served) -> None:
    label = painted_label(page, served)
    corner = int(label[-1, 0])
    page.click("#tool-pick")
    page.drag("#map", [(0.02, 0.98)])
    chosen = page.evaluate("document.querySelector('#classes [aria-pressed=true]').title")
    assert chosen == json.loads(served.ask("facts")[1])["classes"][corner]
    choose(page, "hat")
    page.click("#tool-fill")
    page.drag("#map", [(0.02, 0.98)])
    after = painted_label(page, served)
    assert after[-1, 0] == 14 and (after[label != corner] == label[label != corner]).all()


def test_a_search_leaves_the_classes_whose_names_hold_the_words_and_takes_the_one_that_is_meant(page: Browser) -> None:
    page.evaluate("document.getElementById('find-line').hidden = false")  # as with more than thirty classes
    page.type("#find", "brow")
    left = "[...document.querySelectorAll('#classes button:not([hidden])')].map(e => e.title)"
    assert page.evaluate(left) == ["l_brow", "r_brow"] and said(page, "found") == "2 of 19"
    page.evaluate("document.getElementById('map').focus()")
    chosen = "document.querySelector('#classes [aria-pressed=true]').title"
    page.press(".")
    first = page.evaluate(chosen)
    page.press(".")
    assert [first, page.evaluate(chosen)] == ["l_brow", "r_brow"]
    page.evaluate("document.getElementById('find').select()")
    page.type("#find", "hair")
    assert page.evaluate(chosen) == "hair"


def test_what_loads_is_no_stroke_and_is_not_timed(page: Browser) -> None:
    hint = said(page, "latency")
    assert hint.startswith("Paint a stroke: the time from its end")
    page.click("#sample-next")
    page.wait("document.querySelector('.photo header span').textContent === 'test000001'")
    page.wait(SETTLED)
    assert said(page, "latency") == hint
    page.drag("#map", [(0.5, 0.5)])
    page.wait(SETTLED)
    assert "(median of 1: " in said(page, "latency") and "1 thread each" in said(page, "latency")


def test_a_keyboard_alone_paints(page: Browser, served: Served) -> None:
    before = painted_label(page, served)
    page.evaluate("document.getElementById('map').focus()")
    page.press(".")
    page.press("[")
    name = page.evaluate("document.querySelector('#classes [aria-pressed=true]').title")
    for key in ("ArrowUp", "ArrowLeft", "Enter"):
        page.press(key)
    page.wait(SETTLED)
    after = painted_label(page, served)
    assert (after != before).any()
    assert json.loads(served.ask("facts")[1])["classes"][int(after[SIDE // 2 - 1, SIDE // 2 - 1])] == name
    assert said(page, "map-words").startswith(f"{SIDE // 2 - 1}, {SIDE // 2 - 1}: ")


def test_a_finger_paints(page: Browser, served: Served) -> None:
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    choose(page, "hat")
    page.drag("#map", [(0.1, 0.9), (0.5, 0.9), (0.9, 0.9)], touch=True)
    page.wait(SETTLED)
    assert (painted_label(page, served)[14, 2:14] == 14).all()
    page.call("Emulation.setTouchEmulationEnabled", enabled=False)


def test_twenty_quick_strokes_end_on_the_picture_of_the_last(page: Browser, served: Served) -> None:
    for number in range(20):
        choose(page, ("hat", "skin", "hair", "cloth")[number % 4])
        page.drag("#map", [(number / 20, 0.1), (1 - number / 20, 0.9)])
    after = pictures(page)
    expected = drawn(served, ask(painted_label(page, served)))
    for index in (0, 1):
        assert np.array_equal(after[index], unpacked(expected["pictures"][index]["pixels"], SIDE, SIDE, 3))
    assert page.evaluate("Number(document.body.dataset.shown)") >= 2


def test_a_class_takes_its_style_from_another_photo_and_gives_it_back(page: Browser, served: Served) -> None:
    before = pictures(page)
    page.click("#add-sample")
    page.wait("document.querySelectorAll('.photo').length === 2")
    page.choose("#class-name", "hair")
    page.choose("#class-photo", "1")
    taken = pictures(page)
    label = painted_label(page, served)
    expected = drawn(served, ask(label, styles=("sample:0", "sample:1"), classes={"hair": 1}))
    for index in (0, 1):
        assert np.array_equal(taken[index], unpacked(expected["pictures"][index]["pixels"], SIDE, SIDE, 3))
    assert said(page, "taken") == "hair: B ×"
    page.click("#taken button")
    assert all(np.array_equal(one, other) for one, other in zip(pictures(page), before, strict=True))
    page.choose("#towards", "1")
    page.choose("#position", "100")
    whole = drawn(served, ask(label, styles=("sample:1",)))
    assert np.array_equal(pictures(page)[1], unpacked(whole["pictures"][1]["pixels"], SIDE, SIDE, 3))
    assert page.evaluate("document.getElementById('noise').disabled")
    assert "does not sample styles" in said(page, "noise-reason")


def test_hovering_shows_class_style_and_attention_by_level(page: Browser, served: Served) -> None:
    page.hover_at("#picture-1", (0.5, 0.5))
    page.wait("document.getElementById('looks').dataset.at === '8,8'")
    assert said(page, "pixel").startswith("Column 8, row 8: ") and "style from A" in said(page, "pixel")
    levels = json.loads(served.ask("facts")[1])["runs"][0]["levels"]
    assert page.evaluate("[...document.querySelectorAll('#looks .level')].map(e => e.dataset.level)") == levels
    answer = json.loads(
        served.ask("attention", body({**ask(painted_label(page, served)), "run": 0, "x": 8, "y": 8}))[1]
    )
    first = f"{100 * answer['levels'][0]['shares'][0]:.0f} %"
    assert page.evaluate("document.querySelector('#looks .share').lastChild.textContent") == first
    assert "the family has no attention" in said(page, "looks")


def test_attention_and_the_difference_to_the_last_state_lie_over_the_pictures(page: Browser, served: Served) -> None:
    plain = pictures(page)
    level = json.loads(served.ask("facts")[1])["runs"][0]["levels"][-1]
    page.choose("#show", f"level:{level}")
    page.wait(f"document.body.dataset.overlay === 'level:{level}'")
    answer = json.loads(served.ask("overlay", body({**ask(painted_label(page, served)), "run": 0, "level": level}))[1])
    palette = np.asarray(json.loads(served.ask("facts")[1])["palette"])
    expected = 0.55 * palette[unpacked(answer["classes"], SIDE, SIDE)] + 0.45 * plain[0]
    assert np.abs(pixels(page, "picture-0") - expected).max() <= 1
    assert np.array_equal(pixels(page, "picture-1"), plain[1]), "a family without attention stays as it is"
    page.choose("#show", "difference")
    page.wait("document.body.dataset.overlay === 'difference'")
    choose(page, "hat")
    page.drag("#map", [(0.2, 0.2), (0.8, 0.2)])
    page.wait(SETTLED)
    largest = int(
        page.evaluate("document.querySelector('#run-0 .numbers').textContent").split("largest change ")[1].split()[0]
    )
    page.choose("#show", "picture")
    page.wait("document.body.dataset.overlay === 'picture'")
    change = np.abs(pictures(page)[0].astype(int) - plain[0]).max()
    assert largest == change > 0


def test_the_divider_compares_two_runs(page: Browser) -> None:
    shown = pictures(page)
    page.click("#view-slider")
    assert np.array_equal(pixels(page, "stage-left"), shown[0]) and np.array_equal(
        pixels(page, "stage-right"), shown[1]
    )
    page.evaluate("document.getElementById('slider').focus()")
    page.press("ArrowLeft")
    assert page.evaluate("document.getElementById('stage').style.getPropertyValue('--at')") == "49%"
    page.choose("#right", "2")
    assert np.array_equal(pixels(page, "stage-right"), pixels(page, "truth"))


def test_a_photo_is_uploaded_with_its_map_and_a_bad_one_refused_with_one_line(page: Browser, tmp_path: Path) -> None:
    before = pictures(page)
    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "me.jpg")
    Image.new("L", (40, 40), 1).save(tmp_path / "me_map.png")
    Image.new("L", (40, 40), 200).save(tmp_path / "bad_map.png")
    page.click("#add-upload")
    page.upload("#photo-file", tmp_path / "me.jpg")
    page.upload("#label-file", tmp_path / "bad_map.png")
    page.click("#upload-take")
    page.wait("!document.getElementById('upload-trouble').hidden")
    words = said(page, "upload-trouble")
    assert words == "bad_map.png: label ids 200 are not ids of celebamask_hq (allowed: 0..18)"
    page.upload("#label-file", tmp_path / "me_map.png")
    page.click("#upload-take")
    page.wait("document.querySelectorAll('.photo').length === 2")
    page.choose("#base", "1")
    assert not np.array_equal(pictures(page)[1], before[1])
    assert "uploaded" in said(page, "truth-empty")


def test_a_label_map_is_opened_and_a_bad_one_refused_with_one_line(
    page: Browser, served: Served, tmp_path: Path
) -> None:
    before = pixels(page, "map")
    (tmp_path / "bad.png").write_bytes(b"nothing of the kind")
    page.upload("#map-file", tmp_path / "bad.png")
    page.wait("!document.getElementById('trouble').hidden")
    assert said(page, "trouble").startswith("bad.png: label map cannot be read: its content is no image")
    assert np.array_equal(pixels(page, "map"), before)
    Image.new("L", (32, 32), 17).save(tmp_path / "neck.png")
    page.upload("#map-file", tmp_path / "neck.png")
    page.wait("document.getElementById('trouble').hidden")
    page.wait(SETTLED)
    assert (painted_label(page, served) == 17).all()


def test_what_is_saved_in_the_page_repeats_bit_for_bit_from_the_command_it_shows(
    page: Browser, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    choose(page, "hat")
    page.drag("#map", [(0.1, 0.1), (0.9, 0.2)])
    shown = pictures(page)
    page.click("#save")
    page.wait("!document.getElementById('saved').hidden")
    words = said(page, "saved-command").split()
    assert words[:5] == ["python", "-m", "pipeline", "edit", "--from"]
    assert main([*words[3:], "--out", str(served.out)]) == 0
    again = capsys.readouterr().out
    assert again.count("bit for bit as saved") == 2
    files = [Path(line.split()[0]) for line in again.splitlines()]
    for file, picture in zip(files, shown, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), picture)


def test_another_sample_brings_its_map_and_photo(page: Browser, served: Served) -> None:
    page.click("#sample-next")
    page.wait("document.querySelector('.photo header span').textContent === 'test000001'")
    expected: Any = json.loads(served.ask("photo?name=sample:1")[1])
    page.wait(SETTLED)
    assert np.array_equal(painted_label(page, served), unpacked(expected["label"], SIDE, SIDE))
    assert np.array_equal(pixels(page, "truth"), unpacked(expected["pixels"], SIDE, SIDE, 3))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1024, 1600])
def test_it_fits_from_1024_pixels_on_in_both_themes(page: Browser, served: Served, width: int, dark: bool) -> None:
    page.open(served.address, width=width, height=900, dark=dark)
    page.wait(SETTLED)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST)[0][0] >= 4.5
    right = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.pictures canvas, #map')].map(e => e.getBoundingClientRect().right))"
    )
    assert right <= width
