"""The report in a real headless Chromium: it works, loads nothing, says nothing on the console, and fits a phone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from tests.analysis.sample_images import add_samples
from tests.analysis.synthetic import ARMS, PSNR, SSIM, SyntheticArm, make_study
from tests.browser import CHROMIUM, CONTRAST, Browser, browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")

EVIL = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    arms = (*ARMS[:2], dataclasses.replace(ARMS[2], states={1: "failed"}), *ARMS[3:], SyntheticArm("evil" + EVIL, EVIL))
    manifest = make_study(out, arms=arms, metrics=(PSNR, SSIM), seeds=(0, 1), question=f"What about {EVIL}?")
    add_samples(out, manifest, count=3, blur={"spade": 8})
    assert main(["report", "synthetic", "--out", str(out)]) == 0
    return out / "synthetic" / "report.html"


@pytest.fixture
def page(chromium: Browser, path: Path) -> Iterator[Browser]:
    """The report, freshly opened; whatever a test does must leave the console silent and the network untouched."""
    chromium.open(path)
    yield chromium
    assert chromium.console == []
    assert chromium.requests == [path.resolve().as_uri()]
    assert chromium.evaluate("window.pwned") is None


def column(page: Browser, index: int) -> list[str]:
    rows = "[...document.querySelectorAll('.study-table tbody[data-side=own] tr')].filter(r => !r.hidden)"
    return list(page.evaluate(f"{rows}.map(r => r.cells[{index}].dataset.value ?? r.cells[{index}].textContent)"))


def test_clicking_a_heading_sorts_by_value_best_first(page: Browser) -> None:
    before = [float(value) for value in column(page, 1)]
    assert before != sorted(before, reverse=True)
    page.click(".study-table th[data-column=psnr] .sort")
    assert [float(value) for value in column(page, 1)] == sorted(before, reverse=True)
    assert page.evaluate("document.querySelector('th[data-column=psnr]').ariaSort") == "descending"
    page.click(".study-table th[data-column=psnr] .sort")
    assert [float(value) for value in column(page, 1)] == sorted(before)
    assert page.evaluate("document.querySelectorAll('[aria-sort]').length") == 1
    last = page.evaluate("[...document.querySelectorAll('.study-table tbody tr')].at(-1).dataset.kind")
    assert last == "baseline"  # the trivial baseline stays below, whatever the order


def test_sorting_works_by_keyboard_and_by_name(page: Browser) -> None:
    page.evaluate("document.querySelector('.study-table th .sort').focus()")
    page.press("Enter")
    names = column(page, 0)
    assert names == page.evaluate(f"{json.dumps(names)}.sort((a, b) => a.localeCompare(b))")


def test_filter_hides_other_arms(page: Browser) -> None:
    page.type("#table-filter", "spade")
    assert [name.removesuffix("a") for name in column(page, 0)] == ["SPADE conditioning", "SPADE"]
    assert "2 of 6 rows" in page.evaluate("document.getElementById('table-count').textContent")


def test_slider_follows_mouse_and_keys(page: Browser) -> None:
    def clip() -> str:
        return str(page.evaluate("getComputedStyle(document.getElementById('stage-left')).clipPath"))

    start = clip()
    page.evaluate("document.getElementById('slider').focus()")
    for _ in range(10):
        page.press("ArrowLeft")
    assert page.evaluate("document.getElementById('slider').value") == "40"
    assert clip() != start
    page.click("#slider")  # in the middle
    assert abs(int(page.evaluate("document.getElementById('slider').value")) - 50) <= 2


def test_images_change_with_arm_and_input(page: Browser) -> None:
    def source(name: str) -> str:
        return str(page.evaluate(f"document.getElementById('{name}').src"))

    assert source("stage-left").startswith("data:image/png;base64,")
    assert page.evaluate("document.getElementById('stage-left').naturalWidth") == 32
    change = (
        "(() => {{ const s = document.getElementById('{}'); s.value = '{}'; s.dispatchEvent(new Event('change')); }})()"
    )
    before = source("stage-right")
    page.evaluate(change.format("compare-right", "spade"))
    assert source("stage-right") != before
    assert "Right: SPADE" in page.evaluate("document.getElementById('compare-words').textContent")
    before = source("input-mask")
    page.click("#compare-next")
    assert source("input-mask") != before
    page.click("#compare-previous")
    assert source("input-mask") == before


def test_curves_show_values_under_pointer_and_keys(page: Browser) -> None:
    assert page.evaluate("document.querySelectorAll('#curves .line').length") == 5
    page.hover("#curves")
    assert "iteration" in page.evaluate("document.querySelector('#curves .tip').textContent")
    page.evaluate("document.getElementById('curves').focus()")
    page.press("ArrowRight")
    spoken = page.evaluate("document.getElementById('curve-readout').textContent")
    assert spoken.startswith("Iteration ") and "CA²-SIS" in spoken
    page.click("#curve-legend button")
    assert page.evaluate("document.querySelectorAll('#curves .line').length") == 4
    assert page.evaluate("document.querySelector('#curve-legend button').ariaPressed") == "false"


def test_figures_enlarge_and_close(page: Browser) -> None:
    page.click("#figure-arms_psnr .zoom")
    assert page.evaluate("document.getElementById('zoom').open")
    assert page.evaluate("document.getElementById('zoom-image').naturalWidth") > 0
    page.press("Escape")
    assert not page.evaluate("document.getElementById('zoom').open")


def test_runs_filter_by_text_and_state(page: Browser) -> None:
    def shown() -> Any:
        return page.evaluate("[...document.querySelectorAll('.run')].filter(r => !r.hidden).map(r => r.dataset.state)")

    assert len(shown()) == 12
    page.type("#run-filter", "out of memory")
    assert shown() == ["failed"]
    page.evaluate(
        "(() => { const s = document.getElementById('run-state'); s.value = 'finished'; s.dispatchEvent(new Event('change')); })()"
    )
    assert shown() == []
    assert "0 of 12" in page.evaluate("document.getElementById('run-count').textContent")


def test_every_image_decodes(page: Browser) -> None:
    broken = page.evaluate(
        "Promise.all([...document.images].filter(i => i.src).map(i => i.decode().then(() => '', () => i.alt || i.id)))"
        ".then(found => found.filter(Boolean))"
    )
    assert broken == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast_aa(page: Browser, path: Path, dark: bool) -> None:
    page.open(path, dark=dark)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    lowest = page.evaluate(CONTRAST)
    assert lowest[0][0] >= 4.5, lowest


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_it_fits_the_screen(page: Browser, path: Path, width: int) -> None:
    page.open(path, width=width, height=800)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


def test_paper_gets_everything_but_controls(page: Browser) -> None:
    page.call("Emulation.setEmulatedMedia", media="print")
    hidden = page.evaluate("['.toc', '.tools', '.copy'].every(s => !document.querySelector(s).checkVisibility())")
    shown = page.evaluate(
        "['#verdict', '.study-table', '#figures img', '#runs'].every(s => document.querySelector(s).checkVisibility())"
    )
    page.call("Emulation.setEmulatedMedia", media="")
    assert hidden and shown


def test_without_scripts_the_content_is_there(chromium: Browser, path: Path) -> None:
    chromium.open(path, script=False)
    try:
        text = chromium.evaluate("document.body.innerText")
        assert "Verdict" in text and "needs JavaScript" in text and "Reproduce" in text
    finally:
        chromium.open(path)
