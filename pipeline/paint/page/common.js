// What every part of the page uses: elements, and how the server is asked. Text enters the page through textContent only, so no
// name in the data can become markup.

export const $ = (id) => document.getElementById(id);
export const make = (name, attributes = {}, text = "") => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
};
export const trouble = (words) => { $("trouble").textContent = words; $("trouble").hidden = !words; };

const GONE = "The server does not answer: is `python -m pipeline paint` still running?";
const gone = () => { throw new Error(GONE); };
const sound = (said) => { if (said.error) throw new Error(said.error); return said; };

// The answer to a request, as JSON. Throws an Error with one line where the server refuses or is gone.
export async function ask(address, options) {
  const answer = await fetch(address, options).catch(gone);
  return sound(await answer.json().catch(() => ({ error: `The server failed (${answer.status}); its terminal says why.` })));
}
export const post = (address, value) => ask(address, { method: "POST", body: JSON.stringify(value) });

// An answer in parts, a line of JSON each: `told` hears every part as it comes. Throws as `ask` does.
export async function parts(address, value, told) {
  const answer = await fetch(address, { method: "POST", body: JSON.stringify(value) }).catch(gone);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value: text } = await reader.read().catch(gone);
    const lines = (rest + (done ? "\n" : text)).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) told(sound(JSON.parse(line)));
    if (done) return;
  }
}

// The options of a select, [value, words] each.
export function options(select, pairs, value) {
  select.replaceChildren(...pairs.map(([key, words]) => make("option", { value: key }, words)));
  select.value = value;
}
