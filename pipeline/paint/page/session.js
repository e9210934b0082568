// What is painted: the runs and their data set, the label map, the style photos and the recipe. Every part of the page reads it.
import { $, ask, trouble } from "./common.js";
import { LabelMap } from "./map.js";
import { text } from "./pixels.js";

export const LETTERS = "ABCDEFGHIJKLMNOP"; // of style photos: the server takes so many
const PAGE = Array.from(crypto.getRandomValues(new Uint8Array(10)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export const facts = await ask("facts").catch((error) => { trouble(error.message); throw error; });
export const { width, height, classes, palette, runs } = facts;
export const recipe = { base: 0, towards: null, position: 0, noise: 0, seed: 0, classes: {} };
export const photos = []; // {name, key, pixels, label}: style photos A, B, ...
export const told = {}; // what the map tells; the page fills it in (see LabelMap)
export const map = new LabelMap($("map"), $("map-brush"), facts, told);

export const colour = (k) => `rgb(${palette[k].join(" ")})`;
export const letter = (place) => `${LETTERS[place]} (${photos[place]?.key})`;
export const can = (wish) => runs.some((run) => !run.refusals[wish]);
export const reasons = (wish) => [...new Set(runs.filter((run) => run.refusals[wish]).map((run) => `${run.family}: ${run.refusals[wish]}`))].join("; ");
export const scene = () => ({ page: PAGE, label: text(map.label), styles: photos.map((photo) => photo.name), recipe });
