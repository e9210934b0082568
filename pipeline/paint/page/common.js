// What every part of the page uses: elements, and one way of asking the server. Text enters the page through textContent only, so no
// name in the data can become markup.

export const $ = (id) => document.getElementById(id);
export const make = (name, attributes = {}, text = "") => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
};
export const trouble = (words) => { $("trouble").textContent = words; $("trouble").hidden = !words; };

// The answer to a request, as JSON. Throws an Error with one line where the server refuses or is gone.
export async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer: is `python -m pipeline paint` still running?");
  }
  const said = await answer.json().catch(() => ({ error: `The server failed (${answer.status}); its terminal says why.` }));
  if (said.error) throw new Error(said.error);
  return said;
}
export const post = (address, value) => ask(address, { method: "POST", body: JSON.stringify(value) });

// The options of a select, [value, words] each.
export function options(select, pairs, value) {
  select.replaceChildren(...pairs.map(([key, words]) => make("option", { value: key }, words)));
  select.value = value;
}
