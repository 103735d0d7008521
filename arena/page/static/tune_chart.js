// Draws loss curves of one or several runs as SVG. Knows numbers and names only.
(() => {
  "use strict";
  const WIDTH = 760, HEIGHT = 240, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 30;
  const COLOURS = 6;

  const node = (name, values, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const ends = (numbers) => [Math.min(...numbers), Math.max(...numbers)];

  // `runs`: each {name, losses: [[step, loss] …], heldout_losses}; `words` names the two kinds.
  const draw = (figure, runs, words, format) => {
    const shown = runs.filter((run) => run.losses.length);
    figure.hidden = !shown.length;
    figure.querySelectorAll("svg, ul").forEach((old) => old.remove());
    if (!shown.length) return;
    const points = shown.flatMap((run) => [...run.losses, ...run.heldout_losses]);
    const [, lastStep] = ends(points.map(([step]) => step));
    let [low, high] = ends(points.map(([, loss]) => loss));
    if (high - low < 1e-6) { low -= 0.5; high += 0.5; }
    const x = (step) => LEFT + (WIDTH - LEFT - RIGHT) * step / Math.max(1, lastStep);
    const y = (loss) => TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low);
    const told = shown.map((run) => {
      const loss = run.losses.at(-1)[1], kept = run.heldout_losses.at(-1);
      const more = kept ? `, ${words.heldout} ${format(kept[1])}` : "";
      return `${run.name}: ${words.loss} ${format(loss)}${more}`;
    });
    const svg = node("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told.join("; ")});
    for (let line = 0; line <= 4; line += 1) {
      const value = low + (high - low) * line / 4;
      svg.append(node("line", {x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid"}));
      svg.append(node("text", {x: LEFT - 8, y: y(value) + 4, "text-anchor": "end"}, format(value)));
    }
    svg.append(node("text", {x: LEFT, y: HEIGHT - 8}, "0"));
    svg.append(node("text", {x: WIDTH - RIGHT, y: HEIGHT - 8, "text-anchor": "end"}, format(lastStep)));
    shown.forEach((run, at) => {
      const kind = `curve-${at % COLOURS}`;
      const path = (list) => list.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
      svg.append(node("polyline", {points: path(run.losses), class: `curve ${kind}`}));
      svg.append(node("polyline", {points: path(run.heldout_losses), class: `curve kept ${kind}`}));
      run.heldout_losses.forEach(([step, loss]) => {
        svg.append(node("circle", {cx: x(step), cy: y(loss), r: 3.5, class: `dot ${kind}`}));
      });
    });
    figure.append(svg);
    const legend = document.createElement("ul");
    told.forEach((text, at) => {
      const entry = document.createElement("li");
      entry.className = `curve-${at % COLOURS}`;
      entry.textContent = text;
      legend.append(entry);
    });
    figure.append(legend);
  };

  window.arena.drawCurves = draw;
})();
