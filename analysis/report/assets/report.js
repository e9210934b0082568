"use strict";
// Behaviour of the report. Text enters the page through textContent only, so no name in the data can become markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const make = (name, attributes = {}, text = "") => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return node;
  };

  // -- results table: sort within each group of rows, filter by name ------------------------------------------------------
  const table = document.querySelector(".study-table table");
  if (table) {
    const headings = [...table.querySelectorAll("thead tr:last-child th")];
    headings.forEach((heading, column) => {
      const button = make("button", { type: "button", class: "sort" });
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        // The first click puts the best on top; where no direction is known, the largest.
        const first = column === 0 || heading.dataset.direction === "min" ? "ascending" : "descending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = heading.getAttribute("aria-sort") === first ? other : first;
        headings.forEach((item) => item.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        for (const body of table.tBodies) {
          const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
          rows.sort((a, b) => {
            if (column === 0) return sign * a.cells[0].textContent.localeCompare(b.cells[0].textContent);
            const [x, y] = [a.cells[column], b.cells[column]].map((cell) => parseFloat(cell.dataset.value));
            if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // no number: always last
            return sign * (x - y);
          });
          body.append(...rows);
        }
      });
    });
    const filter = $("table-filter");
    const rows = [...table.querySelectorAll("tbody tr:not(.group)")];
    const apply = () => {
      const wanted = filter.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
        shown += !row.hidden;
      }
      $("table-count").textContent = wanted ? `${shown} of ${rows.length} rows` : "";
    };
    filter.addEventListener("input", apply);
  }

  // -- runs: filter by text and state -------------------------------------------------------------------------------------
  const runs = [...document.querySelectorAll("#run-list .run")];
  if (runs.length) {
    const texts = runs.map((run) => run.textContent.toLowerCase());
    const [filter, state] = [$("run-filter"), $("run-state")];
    for (const name of [...new Set(runs.map((run) => run.dataset.state))].sort()) state.append(make("option", { value: name }, name));
    const apply = () => {
      const wanted = filter.value.trim().toLowerCase();
      let shown = 0;
      runs.forEach((run, index) => {
        run.hidden = !(texts[index].includes(wanted) && (!state.value || run.dataset.state === state.value));
        shown += !run.hidden;
      });
      $("run-count").textContent = `${shown} of ${runs.length} runs`;
    };
    filter.addEventListener("input", apply);
    state.addEventListener("change", apply);
    apply();
  }

  // -- image comparison ----------------------------------------------------------------------------------------------------
  const comparer = data.comparer;
  if (comparer) {
    const [left, right, item, stage, slider] = ["compare-left", "compare-right", "compare-item", "stage", "slider"].map($);
    const TARGET = "\u0000target";
    const name = (arm) => (arm === TARGET ? "target" : data.labels[arm]);
    for (const select of [left, right]) {
      for (const arm of [...comparer.arms, TARGET]) select.append(make("option", { value: arm }, name(arm)));
    }
    comparer.items.forEach((entry, index) => {
      const word = entry.word ? ` (${entry.word})` : "";
      item.append(make("option", { value: index }, `${entry.key}${word}`));
    });
    const start = comparer.arms.includes(data.reference) ? data.reference : comparer.arms[0];
    left.value = start;
    right.value = comparer.arms.find((arm) => arm !== start) ?? TARGET;
    const put = (image, position, words) => {
      const known = position !== null && position !== undefined;
      image.hidden = !known;
      image.alt = known ? words : "";
      if (known) image.src = comparer.images[position];
    };
    const show = () => {
      const entry = comparer.items[Number(item.value)];
      const position = (arm) => (arm === TARGET ? entry.target : entry.outputs[arm]);
      put($("stage-left"), position(left.value), `${name(left.value)}, input ${entry.key}`);
      put($("stage-right"), position(right.value), `${name(right.value)}, input ${entry.key}`);
      $("name-left").textContent = name(left.value);
      $("name-right").textContent = name(right.value);
      for (const what of ["style", "mask", "target"]) put($(`input-${what}`), entry[what], `${what} of input ${entry.key}`);
      const score = (arm) => (entry.scores[arm] ? ` (${entry.scores[arm]})` : "");
      $("compare-words").textContent = `Left: ${name(left.value)}${score(left.value)}. Right: ${name(right.value)}${score(right.value)}.`;
    };
    const move = () => {
      stage.style.setProperty("--at", `${slider.value}%`);
      slider.setAttribute("aria-valuetext", `${slider.value} % ${name(left.value)}`);
    };
    const step = (by) => {
      item.value = (Number(item.value) + by + comparer.items.length) % comparer.items.length;
      show();
    };
    for (const select of [left, right, item]) select.addEventListener("change", () => { show(); move(); });
    slider.addEventListener("input", move);
    $("compare-previous").addEventListener("click", () => step(-1));
    $("compare-next").addEventListener("click", () => step(1));
    show();
    move();
  }

  // -- learning curves -----------------------------------------------------------------------------------------------------
  if (data.curves.length) {
    const box = $("curves");
    const SVG = "http://www.w3.org/2000/svg";
    const draw = (parent, tag, attributes, text) => {
      const node = document.createElementNS(SVG, tag);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      if (text !== undefined) node.textContent = text;
      parent.append(node);
      return node;
    };
    const off = new Set();
    let current = 0, place = null, geometry = null;
    const print = (value) => (Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4)))).replace("-", "−");
    const ticks = (low, high, count) => {
      const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
      const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= raw);
      const found = [];
      for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) found.push(Number(v.toPrecision(10)));
      return found;
    };
    const render = () => {
      const chart = data.curves[current];
      const lines = chart.lines.filter((line) => !off.has(line.arm));
      const levels = chart.levels.filter((level) => !off.has(level.arm));
      const width = Math.max(280, box.clientWidth), height = Math.max(240, Math.min(380, width * 0.5));
      const pad = { left: 52, right: 14, top: 22, bottom: 34 };
      const xs = chart.lines.flatMap((line) => line.x);
      const ys = lines.flatMap((line) => line.y.flatMap((y, i) => [y - (line.sd[i] ?? 0), y + (line.sd[i] ?? 0)])).concat(levels.map((level) => level.y));
      let [x0, x1] = [Math.min(...xs), Math.max(...xs)];
      let [y0, y1] = ys.length ? [Math.min(...ys), Math.max(...ys)] : [0, 1];
      if (y0 === y1) [y0, y1] = [y0 - 1, y1 + 1];
      [y0, y1] = [y0 - 0.05 * (y1 - y0), y1 + 0.05 * (y1 - y0)];
      const X = (v) => pad.left + ((v - x0) / (x1 - x0)) * (width - pad.left - pad.right);
      const Y = (v) => height - pad.bottom - ((v - y0) / (y1 - y0)) * (height - pad.top - pad.bottom);
      box.replaceChildren();
      const svg = draw(box, "svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${chart.metric} on validation images over training iterations` });
      for (const v of ticks(y0, y1, 5)) {
        draw(svg, "path", { class: "gridline", d: `M${pad.left} ${Y(v)}H${width - pad.right}` });
        draw(svg, "text", { x: pad.left - 8, y: Y(v) + 4, "text-anchor": "end" }, print(v));
      }
      for (const v of ticks(x0, x1, Math.min(8, width / 90))) draw(svg, "text", { x: X(v), y: height - pad.bottom + 18, "text-anchor": "middle" }, print(v));
      draw(svg, "text", { x: pad.left, y: 13 }, `${chart.metric}${chart.unit ? ` [${chart.unit}]` : ""} ${chart.arrow}`);
      draw(svg, "text", { x: width - pad.right, y: height - 3, "text-anchor": "end" }, "iteration");
      for (const line of lines) {
        if (!line.sd.some((sd) => sd !== null)) continue;
        const edge = (sign) => line.x.map((x, i) => `${X(x).toFixed(1)} ${Y(line.y[i] + sign * (line.sd[i] ?? 0)).toFixed(1)}`);
        draw(svg, "path", { class: `band ${data.classes[line.arm]}`, d: `M${edge(1).join("L")}L${edge(-1).reverse().join("L")}Z` });
      }
      for (const level of levels) draw(svg, "path", { class: `level ${data.classes[level.arm]}`, d: `M${pad.left} ${Y(level.y)}H${width - pad.right}` });
      for (const line of lines) draw(svg, "path", { class: `line ${data.classes[line.arm]}`, d: `M${line.x.map((x, i) => `${X(x).toFixed(1)} ${Y(line.y[i]).toFixed(1)}`).join("L")}` });
      const overlay = draw(svg, "g", {});
      geometry = { chart, lines, levels, X, Y, width, height, pad, overlay, xs: [...new Set(xs)].sort((a, b) => a - b) };
      point(place, false);
    };
    const point = (index, speak) => {
      box.querySelector(".tip")?.remove();
      const { chart, lines, levels, X, Y, width, height, pad, overlay, xs } = geometry;
      overlay.replaceChildren();
      if (index === null) return;
      const x = xs[Math.max(0, Math.min(xs.length - 1, index))];
      draw(overlay, "path", { class: "cursor", d: `M${X(x)} ${pad.top}V${height - pad.bottom}` });
      const rows = lines.flatMap((line) => {
        const i = line.x.indexOf(x);
        return i < 0 ? [] : [{ arm: line.arm, y: line.y[i], sd: line.sd[i], n: line.n[i] }];
      }).concat(levels.map((level) => ({ arm: level.arm, y: level.y, sd: null, n: null })));
      rows.sort((a, b) => (chart.direction === "min" ? a.y - b.y : b.y - a.y));
      const tip = make("div", { class: "tip" });
      tip.append(make("strong", {}, `iteration ${x}`));
      const grid = make("table");
      for (const row of rows) {
        draw(overlay, "circle", { class: `point ${data.classes[row.arm]}`, cx: X(x), cy: Y(row.y), r: 4 });
        const tr = make("tr"), first = make("td");
        first.append(make("span", { class: `swatch ${data.classes[row.arm]}` }));
        tr.append(first, make("td", {}, data.labels[row.arm]), make("td", {}, `${print(row.y)}${row.sd !== null ? ` ± ${print(Number(row.sd.toPrecision(2)))}` : ""}`));
        grid.append(tr);
      }
      tip.append(grid);
      box.append(tip);
      const room = width - tip.offsetWidth - 8;
      tip.style.left = `${Math.max(0, X(x) + 14 > room ? X(x) - tip.offsetWidth - 14 : X(x) + 14)}px`;
      if (speak) $("curve-readout").textContent = `Iteration ${x}: ${rows.map((row) => `${data.labels[row.arm]} ${print(row.y)}`).join("; ")}.`;
    };
    box.addEventListener("pointermove", (event) => {
      const bounds = box.querySelector("svg").getBoundingClientRect();
      const at = ((event.clientX - bounds.left) / bounds.width) * geometry.width;
      place = geometry.xs.reduce((best, x, i) => (Math.abs(geometry.X(x) - at) < Math.abs(geometry.X(geometry.xs[best]) - at) ? i : best), 0);
      point(place, false);
    });
    box.addEventListener("pointerleave", () => { place = null; point(null, false); });
    box.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const last = geometry.xs.length - 1;
      place = place === null ? (steps[event.key] > 0 ? 0 : last) : Math.max(0, Math.min(last, place + steps[event.key]));
      point(place, true);
    });
    const tabs = data.curves.map((chart, index) => {
      const button = make("button", { type: "button", "aria-pressed": index === 0 }, chart.metric);
      button.addEventListener("click", () => {
        current = index;
        place = null;
        tabs.forEach((tab, i) => tab.setAttribute("aria-pressed", i === index));
        render();
      });
      return button;
    });
    $("curve-tabs").append(...tabs);
    const arms = [...new Set(data.curves.flatMap((chart) => [...chart.lines, ...chart.levels].map((line) => line.arm)))];
    for (const arm of arms) {
      const button = make("button", { type: "button", "aria-pressed": "true" });
      button.append(make("span", { class: `swatch ${data.classes[arm]}` }), make("span", {}, data.labels[arm]));
      button.addEventListener("click", () => {
        if (!off.delete(arm)) off.add(arm);
        button.setAttribute("aria-pressed", !off.has(arm));
        render();
      });
      $("curve-legend").append(button);
    }
    render();
    let last = box.clientWidth;
    new ResizeObserver(() => {
      if (box.clientWidth !== last) { last = box.clientWidth; render(); }
    }).observe(box);
    addEventListener("beforeprint", render);
  }

  // -- figures: zoom -------------------------------------------------------------------------------------------------------
  const zoom = $("zoom");
  if (zoom) {
    for (const button of document.querySelectorAll("button.zoom")) {
      button.addEventListener("click", () => {
        const image = button.querySelector("img");
        $("zoom-image").src = image.src;
        $("zoom-image").alt = image.alt;
        $("zoom-title").textContent = button.closest("figure").querySelector("h3").textContent;
        zoom.showModal();
      });
    }
    $("zoom-close").addEventListener("click", () => zoom.close());
    zoom.addEventListener("click", (event) => { if (event.target === zoom || event.target === $("zoom-image")) zoom.close(); });
  }

  // -- commands: copy ------------------------------------------------------------------------------------------------------
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code); // clipboard refused: leave the text selected
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }

  // -- where the reader is; everything open on paper -----------------------------------------------------------------------
  const links = new Map([...document.querySelectorAll(".toc a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  links.forEach((_, id) => { const target = $(id); if (target) seen.observe(target); });
})();
