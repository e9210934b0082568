// The pictures of every run: side by side or under a divider, plain, under their attention, or as the difference to the last state.
import { $, make, options, post, trouble } from "./common.js";
import { bytes, difference, draw, laidOver } from "./pixels.js";
import { facts, height, map, palette, runs, scene, width } from "./session.js";

const SMOOTH = 160; // pixels a side from which on pictures are enlarged smoothly
export const views = []; // of each run: canvas and the words below it, pixels of now and of before the last change
let truth = { pixels: null, reason: "", state: 0 };

export function buildPictures() {
  for (const [index, run] of runs.entries()) {
    const figure = make("figure", { id: `run-${index}` });
    const caption = make("figcaption");
    caption.append(make("strong", {}, run.family), make("code", {}, run.short));
    const canvas = make("canvas", { id: `picture-${index}`, role: "img", "aria-label": `Picture of run ${run.short}` });
    const [words, notes] = [make("p", { class: "numbers" }), make("div")];
    figure.append(caption, canvas, words, notes);
    if (run.differs.length) figure.append(make("p", { class: "differs" }, `Against the first: ${run.differs.join(", ")}`));
    $("pictures").append(figure);
    views.push({ run, canvas, words, notes, state: 0, pixels: null, before: null, overlay: null, psnr: null, shown: null });
  }
  const figure = make("figure", { id: "true-edit" });
  const caption = make("figcaption");
  const empty = make("div", { class: "empty", id: "truth-empty" });
  empty.style.setProperty("--aspect", `${width} / ${height}`);
  caption.append(make("strong", {}, "true edit"));
  figure.append(caption, make("canvas", { id: "truth", role: "img", "aria-label": "The true edit, drawn by the renderer" }), empty);
  $("pictures").append(figure);
  figure.hidden = !facts.faces;
  const levels = [...new Set(runs.flatMap((run) => run.levels))];
  options($("show"), [["picture", "pictures"], ["difference", "difference to the last state"], ...levels.map((level) => [`level:${level}`, `attention at ${level} pixels`])], "picture");
  const sides = [...runs.map((run, index) => [index, `${run.family} ${run.short}`]), ...(facts.faces ? [[runs.length, "true edit"]] : [])];
  options($("left"), sides, 0);
  options($("right"), sides, Math.min(1, sides.length - 1));
  $("view-slider").disabled = sides.length < 2;
  if (Math.min(width, height) >= SMOOTH) for (const id of ["pictures", "stage"]) $(id).classList.remove("pixels");
  $("view-side").addEventListener("click", () => side(false));
  $("view-slider").addEventListener("click", () => side(true));
  for (const id of ["left", "right"]) $(id).addEventListener("change", slide);
  $("slider").addEventListener("input", () => $("stage").style.setProperty("--at", `${$("slider").value}%`));
  $("show").addEventListener("change", overlays);
}

// What the pictures are now is what the difference will be shown to.
export function remember() {
  for (const view of views) view.before = view.pixels;
}

// A run's picture of a state, unless that of a newer one is there.
export function show(picture, state) {
  const view = views[picture.run];
  if (state < view.state) return;
  view.state = state;
  view.pixels = bytes(picture.pixels);
  view.before ??= view.pixels;
  view.psnr = picture.psnr;
  view.notes.replaceChildren(...picture.notes.map((note) => make("p", { class: "note" }, note)));
  repaint(view);
  slide();
}

export function showTruth(answer, state) {
  if (state < truth.state) return;
  truth = { pixels: answer.truth === null ? null : bytes(answer.truth), reason: answer.truth_reason, state };
  $("truth").hidden = truth.pixels === null;
  $("truth-empty").hidden = truth.pixels !== null;
  $("truth-empty").textContent = truth.reason;
  if (truth.pixels) draw($("truth"), truth.pixels, facts);
  slide();
}

function repaint(view) {
  const [pixels, words] = seen(view, $("show").value);
  draw(view.canvas, pixels, facts);
  view.shown = pixels;
  view.words.replaceChildren(
    ...(view.psnr === null ? [] : [make("b", {}, `${view.psnr.toFixed(2)} dB`), " to the true edit"]),
    ...(words ? [view.psnr === null ? words : `; ${words}`] : []),
  );
}

// A run's pixels as the page is told to show them, and a word about it.
function seen(view, mode) {
  if (mode === "difference") return difference(view.pixels, view.before);
  if (!mode.startsWith("level:")) return [view.pixels, ""];
  if (view.overlay) return laidOver(view.pixels, view.overlay, map.label, palette);
  return [view.pixels, view.run.levels.includes(mode.slice(6)) ? "" : view.run.refusals.attention || "no such level"];
}

// Attention over the pictures, asked for only where it is to be seen.
export async function overlays() {
  const mode = $("show").value;
  const level = mode.slice(6);
  for (const [index, view] of views.entries()) {
    if (!mode.startsWith("level:") || !view.run.levels.includes(level)) {
      view.overlay = null;
      continue;
    }
    const { state } = view;
    try {
      const answer = await post("overlay", { ...scene(), number: state, run: index, level });
      if (answer.overtaken || view.state !== state || $("show").value !== mode) return;
      view.overlay = bytes(answer.classes);
    } catch (error) {
      trouble(error.message);
    }
  }
  for (const view of views) if (view.pixels) repaint(view);
  slide();
  document.body.dataset.overlay = mode;
}

const side = (sliding) => {
  $("pictures").hidden = sliding;
  $("slider-view").hidden = !sliding;
  $("view-side").setAttribute("aria-pressed", !sliding);
  $("view-slider").setAttribute("aria-pressed", sliding);
  slide();
};

// Both sides of the divider.
function slide() {
  if ($("slider-view").hidden) return;
  for (const name of ["left", "right"]) {
    const index = Number($(name).value);
    const pixels = index < views.length ? views[index].shown : truth.pixels;
    $(`name-${name}`).textContent = $(name).selectedOptions[0].textContent;
    if (pixels) draw($(`stage-${name}`), pixels, facts);
  }
}
