// What a loop from votes to a model says in its card of the tab Tune: where it is, what it made and
// found, and its report, which is shown in a frame that can run and load nothing.
(() => {
  "use strict";
  const made = (name, kind = "", text = "") => {
    const node = document.createElement(name);
    if (kind) node.className = kind;
    if (text) node.textContent = text;
    return node;
  };

  const showReport = async (name, box, button, label) => {
    if (box.firstChild) {
      box.replaceChildren();
    } else {
      const reply = await fetch(`api/tune/runs/${name}/report`);
      const told = await reply.json().catch(() => ({}));
      if (!reply.ok) throw new Error(told.error || `${reply.status}`);
      const frame = made("iframe", "tune-report");
      frame.setAttribute("sandbox", "");
      frame.title = label;
      frame.srcdoc = told.html;
      box.append(frame);
    }
    button.setAttribute("aria-expanded", String(Boolean(box.firstChild)));
  };

  const fillLoop = (box, run, say, tell) => {
    const {loop, name} = run;
    box.hidden = !loop;
    const key = JSON.stringify([run.state, loop]);
    if (!loop || box.dataset.key === key) return;
    box.dataset.key = key;
    const parts = [];
    if (run.state === "running") parts.push(made("p", "muted", loop.at));
    loop.verdicts.forEach((text) => parts.push(made("p", "", text)));
    if (loop.made.length) {
      const values = {models: loop.made.join(", "), parent: run.base, count: loop.num_votes ?? "–"};
      parts.push(made("p", "", say("loop_made", values)));
    }
    if (loop.has_report) {
      const buttons = made("div", "tune-buttons"), shown = made("div");
      const label = `${say("loop_report")}: ${name}`;
      const button = made("button", "act", say("loop_report"));
      button.type = "button";
      button.setAttribute("aria-label", label);
      button.setAttribute("aria-expanded", "false");
      button.addEventListener("click", () => {
        showReport(name, shown, button, label).catch((error) => tell(error.message, "bad"));
      });
      buttons.append(button);
      loop.made.forEach((model) => {
        const link = made("a", "act", say("loop_compare", {model}));
        link.href = `?models=${encodeURIComponent([run.base, model].join(","))}`;
        buttons.append(link);
      });
      parts.push(buttons, shown);
    }
    box.replaceChildren(...parts);
  };

  window.arena.fillLoop = fillLoop;
})();
