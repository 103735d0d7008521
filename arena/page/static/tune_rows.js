// Rows of an uploaded file in the tab Tune: searched, corrected, left out. What was changed is kept
// here until it is saved as a new file; the old one stays.
(() => {
  "use strict";
  const WAIT_MS = 350;
  const byId = (id) => document.getElementById(id);
  const {made} = window.arena;
  let file = "", offset = 0, timer = 0;
  const changes = new Map(), leftOut = new Set();

  const box = () => byId("tune-correct");
  const words = () => JSON.parse(byId("tune-page").dataset.tuneWords);
  const say = (key, values = {}) => words()[key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  const tell = (text) => { byId("tune-correct-status").textContent = text; };

  const send = (method, query, body) => {
    const path = `data/${encodeURIComponent(file)}/rows${query}`;
    return window.arena.ask(words().lost, method, path, body);
  };

  const shown = (row) => {
    const entry = made("article", "tune-row");
    const text = made("textarea");
    text.rows = 3;
    text.spellcheck = false;
    text.value = changes.get(row.number) ?? row.text;
    text.setAttribute("aria-label", say("row", {number: row.number}));
    text.addEventListener("input", () => {
      if (text.value === row.text) changes.delete(row.number);
      else changes.set(row.number, text.value);
      mark();
    });
    const label = made("label", "tune-in-chart");
    const tick = made("input");
    tick.type = "checkbox";
    tick.checked = leftOut.has(row.number);
    tick.addEventListener("change", () => {
      if (tick.checked) leftOut.add(row.number); else leftOut.delete(row.number);
      mark();
    });
    label.append(tick, made("span", "", say("leave_out")));
    entry.append(made("p", "muted", say("row", {number: row.number})), text, label);
    return entry;
  };

  const mark = () => { byId("tune-correct-keep").disabled = !changes.size && !leftOut.size; };

  const load = async () => {
    try {
      const query = new URLSearchParams({search: byId("tune-correct-search").value, offset});
      const found = await send("GET", `?${query}`);
      byId("tune-correct-rows").replaceChildren(...found.rows.map(shown));
      const last = offset + found.rows.length;
      tell(say("rows_found", {first: found.rows.length ? offset + 1 : 0, last, found: found.found, total: found.total}));
      byId("tune-correct-before").disabled = offset === 0;
      byId("tune-correct-after").disabled = last >= found.found;
      byId("tune-correct-after").dataset.step = found.rows.length;
    } catch (error) {
      byId("tune-correct-rows").replaceChildren();
      tell(error.message);
    }
    mark();
  };

  const keep = async () => {
    try {
      const kept = await send("POST", "", {changes: Object.fromEntries(changes), left_out: [...leftOut]});
      await window.arena.tuneKept(kept);
    } catch (error) { tell(error.message); }
  };

  // Called by tune.js whenever another source may be chosen; only uploaded files have rows here.
  window.arena.correctRows = (name) => {
    const isOther = name !== file;
    box().hidden = !name;
    if (isOther) {
      file = name;
      offset = 0;
      changes.clear();
      leftOut.clear();
      byId("tune-correct-rows").replaceChildren();
    }
    if (name && isOther && box().open) load();
  };

  document.addEventListener("toggle", (event) => {
    if (event.target.id === "tune-correct" && event.target.open) load();
  }, true);
  document.addEventListener("input", (event) => {
    if (event.target.id !== "tune-correct-search") return;
    clearTimeout(timer);
    timer = setTimeout(() => { offset = 0; load(); }, WAIT_MS);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id === "tune-correct-search" && event.key === "Enter") event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const id = event.target.id;
    if (id === "tune-correct-keep") keep();
    else if (id === "tune-correct-after") { offset += Number(event.target.dataset.step); load(); }
    else if (id === "tune-correct-before") { offset = Math.max(0, offset - 50); load(); }
  });
})();
