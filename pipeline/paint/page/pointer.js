// What lies under the pointer: class, where its style comes from, and what each run attends to there, at each level.
import { $, make, post, trouble } from "./common.js";
import { views } from "./pictures.js";
import { can, classes, colour, height, letter, map, recipe, runs, scene, width } from "./session.js";

const LEAST = 0.005; // share of attention that is shown
const pointer = { x: null, y: null, busy: false, again: false };

export function watchPictures() {
  $("pictures").addEventListener("pointermove", (event) => {
    if (event.target.tagName !== "CANVAS") return;
    const box = event.target.getBoundingClientRect();
    const [x, y] = [Math.floor(((event.clientX - box.left) / box.width) * width), Math.floor(((event.clientY - box.top) / box.height) * height)];
    if (x >= 0 && y >= 0 && x < width && y < height) pointed(x, y);
  });
}

export function pointed(x, y) {
  Object.assign(pointer, { x, y });
  const name = classes[map.label[y * width + x]];
  $("map-words").textContent = `${x}, ${y}: ${name}. Painting ${classes[map.current]}.`;
  const place = name in recipe.classes && can("classes") ? recipe.classes[name] : null;
  let style = "";
  if (place !== null) style = `its style from ${letter(place)}`;
  else if (can("photo")) style = `style from ${letter(recipe.base)}${recipe.towards !== null && recipe.position > 0 ? ` and ${letter(recipe.towards)}` : ""}`;
  $("pixel").textContent = `Column ${x}, row ${y}: ${name}${style ? `, ${style}` : ""}${recipe.noise > 0 && place === null ? ", with noise" : ""}.`;
  look();
}

// What each run attends to there; one question at a time, the newest last, and none before the pictures are there.
export async function look() {
  const looking = runs.map((run, index) => ({ run, index })).filter(({ run }) => !run.refusals.attention);
  if (pointer.x === null || !looking.length || document.body.dataset.state !== "settled") return;
  if (pointer.busy) {
    pointer.again = true;
    return;
  }
  pointer.busy = true;
  const { x, y } = pointer;
  try {
    const answers = await Promise.all(looking.map(({ index }) => post("attention", { ...scene(), number: views[index].state, run: index, x, y })));
    if (!answers.some((answer) => answer.overtaken)) {
      const found = looking.map(({ run }, i) => attended(run, answers[i].levels));
      $("looks").replaceChildren(...found, ...runs.filter((run) => run.refusals.attention).map(unattended));
      $("looks").dataset.at = `${x},${y}`;
    }
  } catch (error) {
    trouble(error.message);
  }
  pointer.busy = false;
  if (pointer.again) {
    pointer.again = false;
    look();
  }
}

function attended(run, levels) {
  const box = make("div");
  box.append(make("h4", {}, `${run.family} ${run.short} attends to`));
  for (const level of levels) {
    const row = make("div", { class: "level", "data-level": level.level });
    const shares = make("div");
    level.classes.forEach((k, i) => {
      if (i > 0 && level.shares[i] < LEAST) return;
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
  return box;
}

function unattended(run) {
  const box = make("div");
  box.append(make("h4", {}, `${run.family} ${run.short}`), make("p", { class: "small" }, run.refusals.attention));
  return box;
}
