// The paint page: puts its parts together, and saves what they show.
import { $, post, trouble } from "./common.js";
import { buildBrushes, choose, history, loadSample } from "./brushes.js";
import { buildPictures } from "./pictures.js";
import { watchPictures } from "./pointer.js";
import { number } from "./requests.js";
import { classes, facts, height, map, runs, scene, width } from "./session.js";
import { buildStyles } from "./styles.js";

async function save() {
  try {
    const answer = await post("save", { ...scene(), number: number() });
    $("saved").hidden = false;
    $("saved-words").textContent = `Saved beside ${answer.path}. The same pictures again, bit for bit:`;
    $("saved-command").textContent = answer.command;
    trouble("");
  } catch (error) {
    trouble(error.message);
  }
}

const families = runs.map((run) => `${run.family} ${run.short}`).join(" · ");
document.title = `Paint: ${families}`;
$("title").textContent = families;
$("eyebrow").textContent = `Paint · ${facts.data}, split ${facts.split}, ${height} × ${width} pixels`;
$("save").addEventListener("click", save);
$("saved-copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("saved-command").textContent);
  $("saved-copy").textContent = "Copied";
});
buildBrushes();
buildPictures();
watchPictures();
buildStyles(choose);
await loadSample(0);
choose(Math.min(1, classes.length - 1));
map.before = []; // what is there at the start cannot be undone
history();
