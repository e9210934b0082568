// Style photos, and what is taken from which: all of it, a way between two, single classes, noise.
import { $, ask, make, options, trouble } from "./common.js";
import { bytes, coloured, draw, text } from "./pixels.js";
import { begun, changed, ended } from "./requests.js";
import { LETTERS, can, classes, colour, facts, letter, map, palette, photos, reasons, recipe } from "./session.js";

export const fetchPhoto = async (name) => taken(await ask(`photo?${new URLSearchParams({ name })}`));
const taken = (photo) => ({ ...photo, pixels: bytes(photo.pixels), label: bytes(photo.label) });

// A photo as style A, with no word to the server yet.
export function putFirst(photo) {
  photos[0] = photo;
  styles();
}

async function setPhoto(place, name) {
  try {
    const photo = await fetchPhoto(name);
    begun();
    photos[place] = photo;
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
  $("photos").replaceChildren(...photos.map(card));
  const letters = photos.map((_, place) => [place, letter(place)]);
  options($("base"), letters, recipe.base);
  options($("towards"), [["", "nowhere"], ...letters], recipe.towards ?? "");
  options($("class-photo"), [["", "the rest"], ...letters], recipe.classes[$("class-name").value] ?? "");
  const ways = [["file", "a file (PNG of class ids)"], ["painted", "the map as it is painted"]];
  options($("photo-label"), [...ways, ...photos.map((photo, place) => [photo.name, `that of ${letter(place)}`])], "file");
  $("label-file-line").hidden = false;
  $("taken").replaceChildren(...Object.entries(recipe.classes).map(([name, place]) => chip(name, place)));
  for (const [id, wish] of [["base", "photo"], ["towards", "towards"], ["class-name", "classes"], ["class-photo", "classes"], ["noise", "noise"], ["again", "noise"]]) $(id).disabled = !can(wish);
  $("position").disabled = !can("towards") || recipe.towards === null;
  $("add-sample").disabled = $("add-upload").disabled = photos.length >= LETTERS.length;
  for (const wish of ["photo", "classes", "noise"]) $(`${wish}-reason`).textContent = reasons(wish);
}

// A style photo with its label map, and what can be done with it.
function card(photo, place) {
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
  paint.addEventListener("click", (event) => map.load(photo.label, event.timeStamp));
  foot.append(paint);
  if (photos.length > 1) {
    const away = make("button", { type: "button", "aria-label": `Remove style photo ${LETTERS[place]}` }, "×");
    away.addEventListener("click", () => drop(place));
    foot.append(away);
  }
  box.append(head, picture, mask, foot);
  return box;
}

// A class that takes its style from a photo of its own; a click takes it back.
function chip(name, place) {
  const button = make("button", { type: "button", "aria-label": `${name} from ${LETTERS[place]}: take it back` });
  const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
  const k = classes.indexOf(name);
  swatch.style.setProperty("--arm", colour(k));
  button.append(swatch, make("span", {}, `${name}: ${LETTERS[place]}${photos[place].label.includes(k) ? "" : ", which has none"} ×`));
  button.addEventListener("click", () => { begun(); delete recipe.classes[name]; styles(); changed(); });
  return button;
}

// `choose(k)`: makes a class the one that is painted.
export function buildStyles(choose) {
  $("class-name").append(...classes.map((name) => make("option", { value: name }, name)));
  $("base").addEventListener("change", () => { begun(); recipe.base = Number($("base").value); styles(); changed(); });
  $("towards").addEventListener("change", () => { begun(); recipe.towards = $("towards").value === "" ? null : Number($("towards").value); styles(); changed(); });
  for (const key of ["position", "noise"]) {
    $(key).addEventListener("pointerdown", begun);
    $(key).addEventListener("input", (event) => {
      recipe[key] = Number($(key).value) / 100;
      $(`${key}-words`).textContent = `${$(key).value} %`;
      changed(event.timeStamp, false);
    });
    $(key).addEventListener("change", ended);
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
  $("upload-take").addEventListener("click", upload);
}

async function upload() {
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
}
