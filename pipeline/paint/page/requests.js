// From a change to its pictures: the newest state goes out, the newest pictures are shown, and the page says how long it took.
import { $, parts, trouble } from "./common.js";
import { overlays, remember, show, showTruth } from "./pictures.js";
import { look } from "./pointer.js";
import { facts, photos, runs, scene } from "./session.js";

const MEASURED = 20; // strokes that the median is of
const latencies = [];
// Numbers of states: the newest there is, and the newest that was asked for; requests under way, and the time of the newest change.
const work = { state: 0, asked: 0, open: 0, time: null };
const each = new Map(); // run -> milliseconds of its last picture

// Once a change: what the difference is shown to.
export const begun = remember;

// There is a newer state. `time`: of the event behind it; without one it is no stroke, and not timed. In the middle of a stroke (`final` false) one request is under way at a time:
// what is painted meanwhile goes out whole with the next one, and the states between are dropped.
export function changed(time = null, final = true) {
  work.state += 1;
  work.time = time;
  document.body.dataset.state = "waiting";
  if (final || !work.open) request(final);
}

// The stroke is over: its end does not wait for the pictures of its middle, which the server cuts off.
export function ended() {
  if (work.asked < work.state) request(true);
}

export const number = () => work.state;

async function request(final) {
  if (!photos.length) return;
  const [state, time] = [work.state, work.time];
  work.asked = state;
  work.open += 1;
  let last = { overtaken: true };
  try {
    await parts("pictures", { ...scene(), number: state, final }, (part) => {
      last = part;
      if ("run" in part) {
        each.set(part.run, part.milliseconds);
        show(part, state);
      } else if ("truth" in part) showTruth(part, state);
    });
    trouble("");
  } catch (error) {
    trouble(error.message);
  }
  work.open -= 1;
  if (!work.open && work.asked < work.state) request(false);
  if ("milliseconds" in last && !("run" in last)) {
    const painted = await onScreen();
    document.body.dataset.shown = state;
    if (state === work.state && time !== null) measure(painted, time, last.milliseconds);
  }
  if (!work.open && work.asked === work.state) settle();
}

function settle() {
  document.body.dataset.state = "settled";
  overlays();
  look();
}

// When what was drawn last is on the screen: after the frame it is part of. A page that nobody sees has no frames.
function onScreen() {
  if (document.hidden) return Promise.resolve(performance.now());
  return new Promise((done) => {
    requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => done(performance.now());
      port2.postMessage(null);
    });
  });
}

function measure(painted, time, server) {
  latencies.push(painted - time);
  if (latencies.length > MEASURED) latencies.shift();
  const median = [...latencies].sort((a, b) => a - b)[latencies.length >> 1];
  const threads = facts.threads === 1 ? "1 thread" : `${facts.threads} threads`;
  const drawn = runs.map((run, index) => `${run.family} ${each.get(index).toFixed(0)}`).join(", ");
  Object.assign(document.body.dataset, { latency: (painted - time).toFixed(1), server: server.toFixed(1), painted: painted.toFixed(1) });
  $("latency").textContent =
    `Stroke to picture ${(painted - time).toFixed(0)} ms (median of ${latencies.length}: ${median.toFixed(0)} ms), ` +
    `of which the server ${server.toFixed(0)} ms (${drawn}; ${threads}${runs.length > 1 ? " each" : ""})`;
}
