// What one paints with: classes, tools, the brush's width, undo, and the maps one starts from. By button and by key.
import { $, ask, make, trouble } from "./common.js";
import { bytes } from "./pixels.js";
import { begun, changed, ended } from "./requests.js";
import { pointed } from "./pointer.js";
import { classes, colour, facts, height, map, photos, recipe, told, width } from "./session.js";
import { fetchPhoto, putFirst } from "./styles.js";

const MANY = 30; // classes from which on they can be searched
const button = (k) => $("classes").children[k];

export function choose(k) {
  map.current = k;
  [...$("classes").children].forEach((other, index) => other.setAttribute("aria-pressed", index === k));
  const [box, chosen] = [$("classes"), button(k)]; // the list scrolls, never the page
  if (chosen.offsetTop < box.scrollTop) box.scrollTop = chosen.offsetTop;
  else if (chosen.offsetTop + chosen.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = chosen.offsetTop + chosen.offsetHeight - box.clientHeight;
  if (!$("class-name").disabled) {
    $("class-name").value = classes[k];
    $("class-photo").value = recipe.classes[classes[k]] ?? "";
  }
  $("map-words").textContent = `Painting ${classes[k]}.`;
}

// The next class that the search leaves, forwards or backwards.
function step(by) {
  const left = classes.map((_, k) => k).filter((k) => !button(k).hidden);
  if (!left.length) return;
  const at = left.indexOf(map.current);
  choose(left[at < 0 ? 0 : (at + by + left.length) % left.length]);
}

// The classes whose names hold the words; the one that is named in full, or left alone, is what one paints.
function find() {
  const wanted = $("find").value.trim().toLowerCase();
  classes.forEach((name, k) => { button(k).hidden = !name.toLowerCase().includes(wanted); });
  const left = classes.map((_, k) => k).filter((k) => !button(k).hidden);
  const named = left.find((k) => classes[k].toLowerCase() === wanted) ?? (left.length === 1 ? left[0] : null);
  if (named !== null) choose(named);
  $("found").textContent = wanted ? `${left.length} of ${classes.length}` : "";
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

export const history = () => { $("undo").disabled = !map.before.length; $("redo").disabled = !map.after.length; };

export async function loadSample(index) {
  const count = facts.samples;
  const wanted = ((index % count) + count) % count;
  try {
    const photo = await fetchPhoto(`sample:${wanted}`);
    $("sample").value = wanted;
    if ($("sample-style").checked || !photos.length) {
      begun();
      putFirst(photo);
    }
    map.load(photo.label);
    history();
  } catch (error) {
    trouble(error.message);
  }
}

async function openMap() {
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
}

function key(event) {
  const pressed = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && (pressed === "z" || pressed === "y") && event.target.type !== "number") {
    event.preventDefault();
    if (pressed === "y" || event.shiftKey) map.redo(event.timeStamp, !event.repeat);
    else map.undo(event.timeStamp, !event.repeat);
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range]), select, dialog")) return;
  if (pressed === "b" || pressed === "f" || pressed === "p") tool({ b: "brush", f: "fill", p: "pick" }[pressed]);
  else if (pressed === "[" || pressed === "]") widen(pressed === "]" ? 1 : -1);
  else if (pressed === "," || pressed === ".") step(pressed === "." ? 1 : -1);
}

export function buildBrushes() {
  Object.assign(told, { begun, changed, ended, picked: choose, pointed });
  classes.forEach((name, k) => {
    const made = make("button", { type: "button", "aria-pressed": "false", title: name });
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.setProperty("--arm", colour(k));
    made.append(swatch, make("span", {}, name));
    made.addEventListener("click", () => choose(k));
    $("classes").append(made);
  });
  $("find-line").hidden = classes.length <= MANY;
  $("classes").classList.toggle("many", classes.length > MANY);
  $("find").addEventListener("input", find);
  for (const name of ["brush", "fill", "pick"]) $(`tool-${name}`).addEventListener("click", () => tool(name));
  $("brush").max = Math.max(4, Math.round(Math.min(width, height) / 3));
  $("brush").value = Math.max(2, Math.round(Math.min(width, height) / 16));
  $("brush").addEventListener("input", () => widen(0));
  widen(0);
  $("undo").addEventListener("click", (event) => map.undo(event.timeStamp));
  $("redo").addEventListener("click", (event) => map.redo(event.timeStamp));
  document.addEventListener("keydown", key);
  document.addEventListener("keyup", ended);
  for (const kind of ["pointerup", "click", "keyup", "change"]) document.addEventListener(kind, history);
  $("sample").max = facts.samples - 1;
  $("sample-previous").addEventListener("click", () => loadSample(Number($("sample").value) - 1));
  $("sample-next").addEventListener("click", () => loadSample(Number($("sample").value) + 1));
  $("sample").addEventListener("change", () => loadSample(Number($("sample").value)));
  $("map-file").addEventListener("change", openMap);
}
