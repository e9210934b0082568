// Pixels as arrays: (H,W,3) of pictures and (H,W) of label maps, row by row; how they travel, and how they are shown.

const READ = { willReadFrequently: true }; // pixels come from and stay in memory
const FAR = 64; // difference of a channel that is shown in full colour
const OVERLAY = 0.55; // weight of a class's colour over the picture

export function bytes(packed) {
  const letters = atob(packed);
  const found = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) found[i] = letters.charCodeAt(i);
  return found;
}

export function text(array) {
  let found = "";
  for (let i = 0; i < array.length; i += 8192) found += String.fromCharCode(...array.subarray(i, i + 8192));
  return btoa(found);
}

export function draw(canvas, pixels, { width, height }) {
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", READ);
  const image = context.createImageData(width, height);
  const data = image.data;
  for (let i = 0, from = 0, to = 0; i < width * height; i += 1) {
    data[to++] = pixels[from++];
    data[to++] = pixels[from++];
    data[to++] = pixels[from++];
    data[to++] = 255;
  }
  context.putImageData(image, 0, 0);
}

// The colours of a label map.
export const coloured = (label, palette) => Uint8Array.from({ length: 3 * label.length }, (_, i) => palette[label[Math.floor(i / 3)]][i % 3]);

// What changed, from grey (nothing) to orange (FAR and more), and a word about it.
export function difference(now, before) {
  let largest = 0;
  const pixels = new Uint8Array(now.length);
  for (let i = 0; i < now.length; i += 3) {
    let distance = 0;
    for (let c = 0; c < 3; c += 1) distance = Math.max(distance, Math.abs(now[i + c] - before[i + c]));
    largest = Math.max(largest, distance);
    const share = Math.min(1, distance / FAR);
    const grey = (now[i] + now[i + 1] + now[i + 2]) / 6;
    pixels.set([grey + (255 - grey) * share, grey + (120 - grey) * share, grey * (1 - share)], i);
  }
  return [pixels, `largest change ${largest} of 255`];
}

// The colours of classes over a picture, and at how many pixels they are those of the label map.
export function laidOver(picture, classes, label, palette) {
  let agreeing = 0;
  const pixels = new Uint8Array(picture.length);
  classes.forEach((k, i) => {
    agreeing += k === label[i];
    for (let c = 0; c < 3; c += 1) pixels[3 * i + c] = OVERLAY * palette[k][c] + (1 - OVERLAY) * picture[3 * i + c];
  });
  return [pixels, `attends to its own class at ${((100 * agreeing) / classes.length).toFixed(0)} % of the pixels`];
}
