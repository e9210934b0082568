// The label map as one paints it: brush, fill, pick, undo; by mouse, touch and keyboard. Knows nothing of pictures or of the server.

const HISTORY = 200; // states that undo reaches back

export class LabelMap {
  // `told`: begun() before the first pixel of a change, changed(time, final) after it, where `final` is false in the middle of a stroke
  // and of a key held down, ended() at its end, picked(class), pointed(x, y) for the pixel under pointer or cursor.
  constructor(canvas, mark, { width, height, palette }, told) {
    Object.assign(this, { canvas, mark, width, height, palette, told });
    Object.assign(this, { tool: "brush", brush: 3, current: 1, label: new Uint8Array(width * height), before: [], after: [] });
    this.cursor = { x: width >> 1, y: height >> 1 };
    [canvas.width, canvas.height] = [width, height];
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.image = this.context.createImageData(width, height);
    this.last = null; // place of the stroke that runs
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => this.lift());
    canvas.addEventListener("pointerleave", () => { if (document.activeElement !== canvas) mark.hidden = true; });
    canvas.addEventListener("blur", () => { mark.hidden = true; });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  // The whole map anew, as one change that undo takes back.
  load(label, time) {
    this.remember();
    this.label = Uint8Array.from(label);
    this.draw();
    this.told.changed(time, true);
  }

  undo(time, final = true) { this.swap(this.before, this.after, time, final); }
  redo(time, final = true) { this.swap(this.after, this.before, time, final); }

  swap(from, to, time, final) {
    if (!from.length) return;
    this.told.begun();
    to.push(this.label);
    this.label = from.pop();
    this.draw();
    this.told.changed(time, final);
  }

  remember() {
    this.told.begun();
    this.before.push(this.label.slice());
    if (this.before.length > HISTORY) this.before.shift();
    this.after = [];
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * this.width, y: ((event.clientY - box.top) / box.height) * this.height };
  }

  press(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.place(event);
    if (this.tool === "brush") this.last = at;
    this.apply(at, event.timeStamp, true);
  }

  lift() {
    this.last = null;
    this.told.ended();
  }

  move(event) {
    if (!event.isPrimary) return;
    const at = this.place(event);
    this.show(at);
    if (this.last === null) return;
    for (const part of event.getCoalescedEvents?.() ?? [event]) {
      const next = this.place(part);
      this.line(this.last, next);
      this.last = next;
    }
    this.line(this.last, at);
    this.last = at;
    this.draw();
    this.told.changed(event.timeStamp, false);
  }

  // The tool at a place in pixels, as one change.
  apply(at, time, final) {
    const [x, y] = [Math.floor(at.x), Math.floor(at.y)];
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return;
    if (this.tool === "pick") {
      this.told.picked(this.label[y * this.width + x]);
      return;
    }
    this.remember();
    if (this.tool === "fill") this.fill(x, y);
    else this.stamp(at);
    this.draw();
    this.told.changed(time, final);
  }

  line(from, to) {
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(0.5, this.brush / 4)));
    for (let i = 1; i <= steps; i += 1) this.stamp({ x: from.x + ((to.x - from.x) * i) / steps, y: from.y + ((to.y - from.y) * i) / steps });
  }

  stamp({ x, y }) {
    const radius = this.brush / 2;
    if (this.brush === 1) {
      this.put(Math.floor(x), Math.floor(y));
      return;
    }
    for (let row = Math.floor(y - radius); row <= y + radius; row += 1) {
      for (let column = Math.floor(x - radius); column <= x + radius; column += 1) {
        if ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius * radius) this.put(column, row);
      }
    }
  }

  put(x, y) {
    if (x >= 0 && y >= 0 && x < this.width && y < this.height) this.label[y * this.width + x] = this.current;
  }

  fill(x, y) {
    const old = this.label[y * this.width + x];
    if (old === this.current) return;
    const open = [[x, y]];
    while (open.length) {
      const [column, row] = open.pop();
      if (column < 0 || row < 0 || column >= this.width || row >= this.height || this.label[row * this.width + column] !== old) continue;
      this.put(column, row);
      open.push([column + 1, row], [column - 1, row], [column, row + 1], [column, row - 1]);
    }
  }

  key(event) {
    const far = event.shiftKey ? 5 : 1;
    const way = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] }[event.key];
    if (way) {
      this.cursor.x = Math.max(0, Math.min(this.width - 1, this.cursor.x + way[0]));
      this.cursor.y = Math.max(0, Math.min(this.height - 1, this.cursor.y + way[1]));
    } else if (event.key === " " || event.key === "Enter") {
      this.apply({ x: this.cursor.x + 0.5, y: this.cursor.y + 0.5 }, event.timeStamp, !event.repeat);
    } else {
      return;
    }
    event.preventDefault();
    this.show({ x: this.cursor.x + 0.5, y: this.cursor.y + 0.5 });
  }

  // The brush's outline at a place, and word of the pixel there.
  show({ x, y }) {
    const wide = this.tool === "brush" ? this.brush : 1;
    this.mark.hidden = false;
    this.mark.classList.toggle("square", wide === 1);
    const style = this.mark.style;
    style.left = `${(100 * x) / this.width}%`;
    style.top = `${(100 * y) / this.height}%`;
    style.width = `${(100 * wide) / this.width}%`;
    style.height = `${(100 * wide) / this.height}%`;
    const [column, row] = [Math.floor(x), Math.floor(y)];
    if (column < 0 || row < 0 || column >= this.width || row >= this.height) return;
    this.cursor = { x: column, y: row };
    this.told.pointed(column, row);
  }

  draw() {
    const data = this.image.data;
    for (let i = 0; i < this.label.length; i += 1) {
      const [red, green, blue] = this.palette[this.label[i]];
      data[4 * i] = red;
      data[4 * i + 1] = green;
      data[4 * i + 2] = blue;
      data[4 * i + 3] = 255;
    }
    this.context.putImageData(this.image, 0, 0);
  }
}
