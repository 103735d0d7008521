// "Watch it learn" in the tab Tune: one prompt for a run's base, checkpoints and variant, their
// answers side by side. The server asks them as a battle by name; this looks at it until it ends.
(() => {
  "use strict";
  const EVERY_MS = 400;
  let count = 0;

  const made = (name, kind = "", text = "") => {
    const node = document.createElement(name);
    if (kind) node.className = kind;
    if (text) node.textContent = text;
    return node;
  };

  const send = async (path, given) => {
    const reply = await fetch(`api/${path}`, given);
    const told = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(told.error || `${reply.status}`);
    return told;
  };

  const show = (box, names, sides, empty = "…") => {
    names.forEach((name, at) => {
      let column = box.children[at];
      if (!column) {
        column = made("article", "tune-row");
        column.append(made("h4", "", name), made("p", "tune-answer"));
        box.append(column);
      }
      const side = sides[at] || {};
      const text = side.error || side.text || empty;
      const line = column.lastChild;
      line.classList.toggle("tune-error", Boolean(side.error));
      if (line.textContent !== text) line.textContent = text;
    });
  };

  const follow = async (box, opened) => {
    const headers = {"x-battle-token": opened.token};
    for (;;) {
      const view = await send(`battles/${opened.battle}`, {headers});
      if (!box.isConnected || box.dataset.battle !== opened.battle) return;
      show(box, opened.models, view.sides, view.running ? "…" : "–");
      if (!view.running) return;
      await new Promise((resolve) => { setTimeout(resolve, EVERY_MS); });
    }
  };

  const watch = async (name, form, box, line, say) => {
    const body = JSON.stringify({prompt: form.elements[0].value});
    const button = form.querySelector("button");
    button.disabled = true;
    line.textContent = "";
    try {
      const headers = {"content-type": "application/json"};
      const opened = await send(`tune/runs/${name}/watch`, {method: "POST", body, headers});
      box.dataset.battle = opened.battle;
      box.replaceChildren();
      show(box, opened.models, []);
      box.setAttribute("aria-busy", "true");
      await follow(box, opened);
      const link = made("a", "", say("watch_open"));
      link.href = `?battle=${encodeURIComponent(opened.battle)}&t=${encodeURIComponent(opened.token)}`;
      line.replaceChildren(link);
    } catch (error) {
      line.replaceChildren(made("span", "tune-error", error.message));
    } finally {
      box.removeAttribute("aria-busy");
      button.disabled = false;
    }
  };

  // A closed box of its own for each run, made once.
  const watchBox = (say, name) => {
    const whole = made("details", "tune-watch");
    const form = made("form");
    const label = made("label", "", say("prompt"));
    const input = made("textarea");
    const button = made("button", "act", say("watch_ask"));
    const box = made("div", "tune-watched");
    const line = made("p");
    input.id = `tune-watch-${count += 1}`;
    input.rows = 2;
    input.required = true;
    label.htmlFor = input.id;
    button.type = "submit";
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", `${say("watch")}: ${name}`);
    box.tabIndex = 0;
    line.setAttribute("role", "status");
    form.append(label, input, button);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      watch(name, form, box, line, say);
    });
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    whole.append(made("summary", "", say("watch")), made("p", "muted", say("watch_note")), form, box, line);
    return whole;
  };

  window.arena.watchBox = watchBox;
})();
