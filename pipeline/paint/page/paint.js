// The paint page: what is painted goes to the server, the pictures of every run come back.
import { $, ask, make, options, post, trouble } from "./common.js";
import { LabelMap } from "./map.js";
import { bytes, coloured, difference, draw, laidOver, text } from "./pixels.js";

const LETTERS = "ABCDEFGHIJKLMNOP"; // of style photos: the server takes so many
const PAGE = Array.from(crypto.getRandomValues(new Uint8Array(10)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const MANY = 30; // classes from which on they can be searched
const SMOOTH = 160; // pixels a side from which on pictures are enlarged smoothly

// -- what is there ---------------------------------------------------------------------------------------------------------

const facts = await ask("facts").catch((error) => { trouble(error.message); throw error; });
const { width, height, classes, palette, runs } = facts;
const recipe = { base: 0, towards: null, position: 0, noise: 0, seed: 0, classes: {} };
const photos = []; // {name, key, pixels, label}: style photos A, B, ...
const views = []; // of each run: canvas and the words below it, pixels of now and of before the last change
let truth = { pixels: null, reason: "" };
const latencies = [];
const work = { number: 0, shown: 0, busy: false, since: null };

const colour = (k) => `rgb(${palette[k].join(" ")})`;
const can = (wish) => runs.some((run) => !run.refusals[wish]);
const reasons = (wish) => [...new Set(runs.filter((run) => run.refusals[wish]).map((run) => `${run.family}: ${run.refusals[wish]}`))].join("; ");
const scene = () => ({ page: PAGE, label: text(map.label), styles: photos.map((photo) => photo.name), recipe });

// -- pictures: the newest state goes out, the newest answer is shown ---------------------------------------------------------

function begun() {
  // Once a change: what the difference is shown to.
  for (const view of views) view.before = view.pixels;
}

function changed(time = performance.now()) {
  if (work.since === null) work.since = time;
  document.body.dataset.state = "waiting";
  send();
}

// One request at a time: what was painted meanwhile goes out whole with the next one, and the states between are dropped. A second
// request under way would be drawn before the newest state, and delay it.
async function send() {
  if (work.since === null || work.busy || !photos.length) return;
  const since = work.since;
  work.since = null;
  work.busy = true;
  work.number += 1;
  const number = work.number;
  try {
    const answer = await post("pictures", { ...scene(), number });
    if (!answer.overtaken && number > work.shown) {
      work.shown = number;
      show(answer);
      measure(performance.now() - since, answer);
      trouble("");
    }
  } catch (error) {
    trouble(error.message);
  }
  work.busy = false;
  if (work.since === null) {
    document.body.dataset.state = "settled";
    document.body.dataset.shown = work.shown;
    overlays();
    look();
  }
  send();
}

function measure(milliseconds, answer) {
  latencies.push(milliseconds);
  if (latencies.length > 20) latencies.shift();
  const median = [...latencies].sort((a, b) => a - b)[latencies.length >> 1];
  const each = answer.pictures.map((picture) => picture.milliseconds.toFixed(0)).join(" + ");
  document.body.dataset.latency = milliseconds.toFixed(1);
  document.body.dataset.server = answer.milliseconds.toFixed(1);
  $("latency").textContent =
    `Stroke to picture ${milliseconds.toFixed(0)} ms (median of ${latencies.length}: ${median.toFixed(0)} ms), ` +
    `of which the server ${answer.milliseconds.toFixed(0)} ms (runs ${each} ms, ${facts.threads} ${facts.threads === 1 ? "thread" : "threads"})`;
}

function show(answer) {
  answer.pictures.forEach((picture, index) => {
    const view = views[index];
    view.pixels = bytes(picture.pixels);
    view.before ??= view.pixels;
    view.psnr = picture.psnr;
    view.notes.replaceChildren(...picture.notes.map((note) => make("p", { class: "note" }, note)));
  });
  truth = { pixels: answer.truth === null ? null : bytes(answer.truth), reason: answer.truth_reason };
  repaint();
}

function repaint() {
  const mode = $("show").value;
  for (const view of views) {
    if (!view.pixels) continue;
    const [pixels, words] = seen(view, mode);
    draw(view.canvas, pixels, facts);
    view.shown = pixels;
    view.words.replaceChildren(
      ...(view.psnr === null ? [] : [make("b", {}, `${view.psnr.toFixed(2)} dB`), " to the true edit"]),
      ...(words ? [view.psnr === null ? words : `; ${words}`] : []),
    );
  }
  $("truth").hidden = truth.pixels === null;
  $("truth-empty").hidden = truth.pixels !== null;
  $("truth-empty").textContent = truth.reason;
  if (truth.pixels) draw($("truth"), truth.pixels, facts);
  slide();
}

// A run's pixels as the page is told to show them, and a word about it.
function seen(view, mode) {
  if (mode === "difference") return difference(view.pixels, view.before);
  if (!mode.startsWith("level:")) return [view.pixels, ""];
  if (view.overlay) return laidOver(view.pixels, view.overlay, map.label, palette);
  return [view.pixels, view.run.levels.includes(mode.slice(6)) ? "" : view.run.refusals.attention || "no such level"];
}

async function overlays() {
  const mode = $("show").value;
  const level = mode.slice(6);
  for (const [index, view] of views.entries()) {
    if (!mode.startsWith("level:") || !view.run.levels.includes(level)) {
      view.overlay = null;
      continue;
    }
    const number = work.number;
    try {
      const answer = await post("overlay", { ...scene(), number, run: index, level });
      if (work.number !== number || $("show").value !== mode) return;
      view.overlay = bytes(answer.classes);
    } catch (error) {
      trouble(error.message);
    }
  }
  if (views.every((view) => view.pixels)) repaint();
  document.body.dataset.overlay = mode;
}

// -- the divider between two pictures ------------------------------------------------------------------------------------------

function slide() {
  if ($("slider-view").hidden) return;
  for (const side of ["left", "right"]) {
    const index = Number($(side).value);
    const pixels = index < views.length ? views[index].shown : truth.pixels;
    $(`name-${side}`).textContent = $(side).selectedOptions[0].textContent;
    if (pixels) draw($(`stage-${side}`), pixels, facts);
  }
}

// -- under the pointer -----------------------------------------------------------------------------------------------------------

const pointer = { x: null, y: null, busy: false, again: false };

function pointed(x, y) {
  Object.assign(pointer, { x, y });
  const k = map.label[y * width + x];
  const name = classes[k];
  $("map-words").textContent = `${x}, ${y}: ${name}. Painting ${classes[map.current]}.`;
  const place = name in recipe.classes && can("classes") ? recipe.classes[name] : null;
  let style = "";
  if (place !== null) style = `its style from ${letter(place)}`;
  else if (can("photo")) style = `style from ${letter(recipe.base)}${recipe.towards !== null && recipe.position > 0 ? ` and ${letter(recipe.towards)}` : ""}`;
  $("pixel").textContent = `Column ${x}, row ${y}: ${name}${style ? `, ${style}` : ""}${recipe.noise > 0 && place === null ? ", with noise" : ""}.`;
  look();
}
const letter = (place) => `${LETTERS[place]} (${photos[place]?.key})`;

// What each run attends to there; one question at a time, the newest last.
async function look() {
  const looking = runs.map((run, index) => ({ run, index })).filter(({ run }) => !run.refusals.attention);
  if (pointer.x === null || !looking.length || document.body.dataset.state !== "settled") return;
  if (pointer.busy) {
    pointer.again = true;
    return;
  }
  pointer.busy = true;
  const { x, y } = pointer;
  try {
    const told = [];
    for (const { run, index } of looking) {
      const answer = await post("attention", { ...scene(), number: work.number, run: index, x, y });
      const box = make("div");
      box.append(make("h4", {}, `${run.family} ${run.short} attends to`));
      for (const level of answer.levels) {
        const row = make("div", { class: "level", "data-level": level.level });
        const shares = make("div");
        level.classes.forEach((k, i) => {
          if (i > 0 && level.shares[i] < 0.005) return;
          const line = make("div", { class: "share" });
          const bar = make("i", { "aria-hidden": "true" });
          bar.style.setProperty("--arm", colour(k));
          bar.style.setProperty("--share", `${100 * level.shares[i]}%`);
          line.append(make("span", {}, classes[k]), bar, make("span", {}, `${(100 * level.shares[i]).toFixed(0)} %`));
          shares.append(line);
        });
        row.append(make("span", {}, `${level.level} px`), shares);
        box.append(row);
      }
      told.push(box);
    }
    for (const run of runs.filter((other) => other.refusals.attention)) {
      const box = make("div");
      box.append(make("h4", {}, `${run.family} ${run.short}`), make("p", { class: "small" }, run.refusals.attention));
      told.push(box);
    }
    $("looks").replaceChildren(...told);
    $("looks").dataset.at = `${x},${y}`;
  } catch (error) {
    trouble(error.message);
  }
  pointer.busy = false;
  if (pointer.again) {
    pointer.again = false;
    look();
  }
}

// -- style photos and what is taken from them ------------------------------------------------------------------------------------

const fetchPhoto = (name) => ask(`photo?${new URLSearchParams({ name })}`);

async function setPhoto(place, name) {
  try {
    const photo = await fetchPhoto(name);
    begun();
    photos[place] = { ...photo, pixels: bytes(photo.pixels), label: bytes(photo.label) };
    styles();
    changed();
  } catch (error) {
    trouble(error.message);
    styles();
  }
}

function drop(place) {
  begun();
  photos.splice(place, 1);
  const moved = (old) => (old > place ? old - 1 : old);
  recipe.base = recipe.base === place ? 0 : moved(recipe.base);
  recipe.towards = recipe.towards === null || recipe.towards === place ? null : moved(recipe.towards);
  recipe.classes = Object.fromEntries(Object.entries(recipe.classes).filter(([, old]) => old !== place).map(([name, old]) => [name, moved(old)]));
  styles();
  changed();
}

// Everything below "Style" anew, from `photos` and `recipe`.
function styles() {
  $("photos").replaceChildren(...photos.map((photo, place) => {
    const box = make("article", { class: "photo", "aria-label": `Style photo ${LETTERS[place]}` });
    const head = make("header");
    head.append(make("b", {}, LETTERS[place]), make("span", { title: photo.key }, photo.key));
    const [picture, mask] = [make("canvas", { role: "img", "aria-label": `photo ${photo.key}` }), make("canvas", { role: "img", "aria-label": "its label map" })];
    draw(picture, photo.pixels, facts);
    draw(mask, coloured(photo.label, palette), facts);
    const foot = make("footer");
    if (photo.name.startsWith("sample:")) {
      const number = make("input", { type: "number", min: 0, max: facts.samples - 1, value: photo.name.slice(7), "aria-label": `Sample of style photo ${LETTERS[place]}` });
      number.addEventListener("change", () => setPhoto(place, `sample:${number.value || 0}`));
      foot.append(number);
    }
    const paint = make("button", { type: "button", title: "Paint on this photo's label map" }, "Use its map");
    paint.addEventListener("click", () => map.load(photo.label));
    foot.append(paint);
    if (photos.length > 1) {
      const away = make("button", { type: "button", "aria-label": `Remove style photo ${LETTERS[place]}` }, "×");
      away.addEventListener("click", () => drop(place));
      foot.append(away);
    }
    box.append(head, picture, mask, foot);
    return box;
  }));
  const letters = photos.map((_, place) => [place, letter(place)]);
  options($("base"), letters, recipe.base);
  options($("towards"), [["", "nowhere"], ...letters], recipe.towards ?? "");
  options($("class-photo"), [["", "the rest"], ...letters], recipe.classes[$("class-name").value] ?? "");
  const ways = [["file", "a file (PNG of class ids)"], ["painted", "the map as it is painted"]];
  options($("photo-label"), [...ways, ...photos.map((photo, place) => [photo.name, `that of ${letter(place)}`])], "file");
  $("label-file-line").hidden = false;
  $("taken").replaceChildren(...Object.entries(recipe.classes).map(([name, place]) => {
    const chip = make("button", { type: "button", "aria-label": `${name} from ${LETTERS[place]}: take it back` });
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.setProperty("--arm", colour(classes.indexOf(name)));
    chip.append(swatch, make("span", {}, `${name}: ${LETTERS[place]}${photos[place].label.includes(classes.indexOf(name)) ? "" : ", which has none"} ×`));
    chip.addEventListener("click", () => { begun(); delete recipe.classes[name]; styles(); changed(); });
    return chip;
  }));
  for (const [id, wish] of [["base", "photo"], ["towards", "towards"], ["class-name", "classes"], ["class-photo", "classes"], ["noise", "noise"], ["again", "noise"]]) $(id).disabled = !can(wish);
  $("position").disabled = !can("towards") || recipe.towards === null;
  $("add-sample").disabled = $("add-upload").disabled = photos.length >= LETTERS.length;
  for (const wish of ["photo", "classes", "noise"]) $(`${wish}-reason`).textContent = reasons(wish);
}

// -- the page -----------------------------------------------------------------------------------------------------------------------

const map = new LabelMap($("map"), $("map-brush"), facts, { begun, changed, picked: choose, pointed });

function choose(k) {
  map.current = k;
  document.querySelectorAll("#classes button").forEach((button, index) => button.setAttribute("aria-pressed", index === k));
  const [box, button] = [$("classes"), $("classes").children[k]]; // the list scrolls, never the page
  if (button.offsetTop < box.scrollTop) box.scrollTop = button.offsetTop;
  else if (button.offsetTop + button.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = button.offsetTop + button.offsetHeight - box.clientHeight;
  if (!$("class-name").disabled) {
    $("class-name").value = classes[k];
    $("class-photo").value = recipe.classes[classes[k]] ?? "";
  }
  $("map-words").textContent = `Painting ${classes[k]}.`;
}

function tool(name) {
  map.tool = name;
  for (const other of ["brush", "fill", "pick"]) $(`tool-${other}`).setAttribute("aria-pressed", other === name);
}

function widen(by) {
  $("brush").value = Number($("brush").value) + by;
  map.brush = Number($("brush").value);
  $("brush-width").textContent = `${map.brush} px`;
}

const history = () => { $("undo").disabled = !map.before.length; $("redo").disabled = !map.after.length; };
for (const kind of ["pointerup", "click", "keyup", "change"]) document.addEventListener(kind, history);

async function loadSample(index) {
  const count = facts.samples;
  const wanted = ((index % count) + count) % count;
  try {
    const photo = await fetchPhoto(`sample:${wanted}`);
    $("sample").value = wanted;
    if ($("sample-style").checked || !photos.length) {
      begun();
      photos[0] = { ...photo, pixels: bytes(photo.pixels), label: bytes(photo.label) };
      styles();
    }
    map.load(bytes(photo.label));
    history();
  } catch (error) {
    trouble(error.message);
  }
}

function build() {
  const families = runs.map((run) => `${run.family} ${run.short}`).join(" · ");
  document.title = `Paint: ${families}`;
  $("title").textContent = families;
  $("eyebrow").textContent = `Paint · ${facts.data}, split ${facts.split}, ${height} × ${width} pixels`;
  classes.forEach((name, k) => {
    const button = make("button", { type: "button", "aria-pressed": "false", title: name });
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.setProperty("--arm", colour(k));
    button.append(swatch, make("span", {}, name));
    button.addEventListener("click", () => choose(k));
    $("classes").append(button);
    $("class-name").append(make("option", { value: name }, name));
  });
  $("find-line").hidden = classes.length <= MANY;
  for (const [index, run] of runs.entries()) {
    const figure = make("figure", { id: `run-${index}` });
    const caption = make("figcaption");
    caption.append(make("strong", {}, run.family), make("code", {}, run.short));
    const canvas = make("canvas", { id: `picture-${index}`, role: "img", "aria-label": `Picture of run ${run.short}` });
    const [words, notes] = [make("p", { class: "numbers" }), make("div")];
    figure.append(caption, canvas, words, notes);
    if (run.differs.length) figure.append(make("p", { class: "differs" }, `Against the first: ${run.differs.join(", ")}`));
    $("pictures").append(figure);
    views.push({ run, canvas, words, notes, pixels: null, before: null, overlay: null, psnr: null, shown: null });
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
  $("brush").max = Math.max(4, Math.round(Math.min(width, height) / 3));
  $("brush").value = Math.max(2, Math.round(Math.min(width, height) / 16));
  widen(0);
  $("sample").max = facts.samples - 1;
  if (Math.min(width, height) >= SMOOTH) for (const id of ["pictures", "stage"]) $(id).classList.remove("pixels");
}

for (const name of ["brush", "fill", "pick"]) $(`tool-${name}`).addEventListener("click", () => tool(name));
$("brush").addEventListener("input", () => widen(0));
$("find").addEventListener("input", () => {
  const wanted = $("find").value.trim().toLowerCase();
  classes.forEach((name, k) => { $("classes").children[k].hidden = !name.toLowerCase().includes(wanted); });
});
$("undo").addEventListener("click", (event) => map.undo(event.timeStamp));
$("redo").addEventListener("click", (event) => map.redo(event.timeStamp));
document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y") && event.target.type !== "number") {
    event.preventDefault();
    if (key === "y" || event.shiftKey) map.redo(event.timeStamp);
    else map.undo(event.timeStamp);
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range]), select, dialog")) return;
  if (key === "b" || key === "f" || key === "p") tool({ b: "brush", f: "fill", p: "pick" }[key]);
  else if (key === "[" || key === "]") widen(key === "]" ? 1 : -1);
  else if (key === "," || key === ".") choose((map.current + (key === "." ? 1 : classes.length - 1)) % classes.length);
});
$("sample-previous").addEventListener("click", () => loadSample(Number($("sample").value) - 1));
$("sample-next").addEventListener("click", () => loadSample(Number($("sample").value) + 1));
$("sample").addEventListener("change", () => loadSample(Number($("sample").value)));
$("map-file").addEventListener("change", async () => {
  const [file] = $("map-file").files;
  $("map-file").value = "";
  if (!file) return;
  try {
    const answer = await ask(`label?${new URLSearchParams({ name: file.name })}`, { method: "POST", body: file });
    map.load(bytes(answer.label));
    trouble("");
    history();
  } catch (error) {
    trouble(error.message);
  }
});

const side = (sliding) => {
  $("pictures").hidden = sliding;
  $("slider-view").hidden = !sliding;
  $("view-side").setAttribute("aria-pressed", !sliding);
  $("view-slider").setAttribute("aria-pressed", sliding);
  slide();
};
$("view-side").addEventListener("click", () => side(false));
$("view-slider").addEventListener("click", () => side(true));
for (const id of ["left", "right"]) $(id).addEventListener("change", slide);
$("slider").addEventListener("input", () => $("stage").style.setProperty("--at", `${$("slider").value}%`));
$("show").addEventListener("change", () => { overlays(); });
$("pictures").addEventListener("pointermove", (event) => {
  if (event.target.tagName !== "CANVAS") return;
  const box = event.target.getBoundingClientRect();
  const [x, y] = [Math.floor(((event.clientX - box.left) / box.width) * width), Math.floor(((event.clientY - box.top) / box.height) * height)];
  if (x >= 0 && y >= 0 && x < width && y < height) pointed(x, y);
});

$("base").addEventListener("change", () => { begun(); recipe.base = Number($("base").value); styles(); changed(); });
$("towards").addEventListener("change", () => { begun(); recipe.towards = $("towards").value === "" ? null : Number($("towards").value); styles(); changed(); });
for (const [id, key] of [["position", "position"], ["noise", "noise"]]) {
  $(id).addEventListener("pointerdown", begun);
  $(id).addEventListener("input", (event) => {
    recipe[key] = Number($(id).value) / 100;
    $(`${id}-words`).textContent = `${$(id).value} %`;
    changed(event.timeStamp);
  });
}
$("again").addEventListener("click", () => { begun(); recipe.seed += 1; changed(); });
$("class-name").addEventListener("change", () => choose(classes.indexOf($("class-name").value)));
$("class-photo").addEventListener("change", () => {
  begun();
  const [name, place] = [$("class-name").value, $("class-photo").value];
  if (place === "") delete recipe.classes[name];
  else recipe.classes[name] = Number(place);
  styles();
  changed();
});
$("add-sample").addEventListener("click", () => setPhoto(photos.length, `sample:${photos.length % facts.samples}`));
$("add-upload").addEventListener("click", () => { $("upload-trouble").hidden = true; $("upload").showModal(); });
$("photo-label").addEventListener("change", () => { $("label-file-line").hidden = $("photo-label").value !== "file"; });
$("upload-take").addEventListener("click", async () => {
  const [[photo], [file], kind] = [$("photo-file").files, $("label-file").files, $("photo-label").value];
  const refuse = (words) => { $("upload-trouble").textContent = words; $("upload-trouble").hidden = false; };
  if (!photo || (kind === "file" && !file)) {
    refuse(photo ? "Choose the photo's label map, or another way to it." : "Choose a photo.");
    return;
  }
  const said = { name: photo.name, bytes: photo.size, label: kind, label_name: kind === "file" ? file.name : "" };
  const rest = { file: [file], painted: [text(map.label)] }[kind] ?? [];
  try {
    const answer = await ask(`style?${new URLSearchParams(said)}`, { method: "POST", body: new Blob([photo, ...rest]) });
    $("upload").close();
    await setPhoto(photos.length, answer.name);
  } catch (error) {
    refuse(error.message);
  }
});
$("save").addEventListener("click", async () => {
  try {
    const answer = await post("save", { ...scene(), number: work.number });
    $("saved").hidden = false;
    $("saved-words").textContent = `Saved beside ${answer.path}. The same pictures again, bit for bit:`;
    $("saved-command").textContent = answer.command;
    trouble("");
  } catch (error) {
    trouble(error.message);
  }
});
$("saved-copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("saved-command").textContent);
  $("saved-copy").textContent = "Copied";
});

build();
await loadSample(0);
choose(Math.min(1, classes.length - 1));
map.before = []; // what is there at the start cannot be undone
history();
