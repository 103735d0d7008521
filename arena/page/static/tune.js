// The tab Tune: what can be chosen, the queue of runs, their figures. All state is the server's,
// asked for over its JSON API while the tab is open.
(() => {
  "use strict";
  const EVERY_MS = 1500;
  const SURE_MS = 6000;
  const GOING = ["starting", "running", "stopping"];
  const OWN = ["base", "data", "name", "method", "objective", "home", "restart", "training.max_minutes", "checks.challengers"];
  const byId = (id) => document.getElementById(id);
  const {made} = window.arena;
  let page = null; // the section that this state belongs to
  let words = {};
  let choices = null;
  let cards = new Map();
  const compared = new Map(); // names of the runs in the chart, and whether somebody chose so
  let isAsking = false;

  const say = (key, values = {}) =>
    (words[key] || key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  const number = (value, digits = 4) =>
    value === null || value === undefined ? "–"
      : value.toLocaleString(page.lang, {maximumSignificantDigits: digits});
  const duration = (seconds) => {
    if (seconds === null || seconds === undefined) return "–";
    const whole = Math.round(seconds), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    const two = (n) => String(n).padStart(2, "0");
    return h ? `${h}:${two(m)}:${two(whole % 60)}` : `${m}:${two(whole % 60)}`;
  };
  const tell = (text, tone = "") => {
    const line = byId("tune-status");
    if (!line || line.textContent === text) return;
    line.textContent = text;
    line.className = `status-line ${tone}`;
  };

  const ask = (...given) => window.arena.ask(words.lost, ...given);
  const told = (act) => async (...given) => {
    try { await act(...given); } catch (error) { tell(error.message, "bad"); }
  };

  // -- the form -----------------------------------------------------------------------------

  const options = (select, entries) => {
    const before = select.value;
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
    if (entries.some(([value]) => value === before)) select.value = before;
  };

  const loadChoices = async () => {
    choices = await ask("GET", "choices");
    options(byId("tune-base"), choices.models.map((one) => [one.name, `${one.name} (${one.kind})`]));
    showFiles();
    showSettings();
    suggest();
  };

  const showFiles = (chosen) => {
    const select = byId("tune-data");
    select.querySelectorAll("[data-upload]").forEach((old) => old.remove());
    const hub = select.querySelector('option[value="hub"]');
    choices.files.forEach((file) => {
      const option = new Option(file.name, file.name);
      option.dataset.upload = "";
      hub.before(option);
    });
    if (chosen) select.value = chosen;
    showHub();
  };

  // Adapters that write answers can be asked while they learn.
  const showChallengers = () => {
    byId("tune-challengers").disabled = byId("tune-method").value === "full" || byId("tune-objective").value === "reward";
  };

  const showHub = () => {
    const chosen = byId("tune-data").selectedOptions[0];
    byId("tune-hub-field").hidden = chosen?.value !== "hub";
    window.arena.correctRows(chosen && "upload" in chosen.dataset ? chosen.value : "");
  };

  const showSettings = () => {
    const rows = choices.settings.filter((one) => !OWN.includes(one.key)).map((one) => {
      const row = made("div", "tune-setting");
      const id = `tune-set-${one.key.replace(/\W/g, "-")}`;
      const label = made("label", "", one.key);
      label.htmlFor = id;
      let input = made("input");
      if (one.kind === "choice" || one.kind === "switch") {
        input = made("select");
        const values = one.kind === "switch" ? ["true", "false"] : one.choices;
        options(input, [["", ""], ...values.map((value) => [value, value])]);
      } else {
        input.type = "text";
        input.spellcheck = false;
        if (one.kind === "number") input.inputMode = "decimal";
      }
      input.id = id;
      input.dataset.setting = one.key;
      input.setAttribute("aria-describedby", `${id}-note`);
      const note = made("p", "muted", `${one.meaning} ${say("default", {value: one.default})}`);
      note.id = `${id}-note`;
      row.append(label, input, note);
      return row;
    });
    byId("tune-settings").replaceChildren(...rows);
  };

  // A name that is free, until somebody writes one.
  const suggest = () => {
    const field = byId("tune-name");
    if (field.dataset.own) return;
    const taken = new Set([...choices.models.map((one) => one.name), ...cards.keys()]);
    const stem = `${byId("tune-base").value || "model"}-${byId("tune-method").value}`;
    const isFree = (name) => !taken.has(name);
    let name = `${stem}-1`;
    for (let count = 1; !isFree(name); count += 1) name = `${stem}-${count}`;
    field.value = name;
  };

  const wished = () => {
    const source = byId("tune-data").value;
    const settings = {
      base: byId("tune-base").value,
      data: [source === "hub" ? byId("tune-hub").value.trim() : source],
      method: byId("tune-method").value,
      objective: byId("tune-objective").value,
    };
    const minutes = byId("tune-minutes").value.trim();
    if (minutes) settings["training.max_minutes"] = minutes;
    const challengers = byId("tune-challengers");
    if (challengers.value !== "none" && !challengers.disabled) settings["checks.challengers"] = challengers.value;
    document.querySelectorAll("#tune-settings [data-setting]").forEach((input) => {
      if (input.value.trim()) settings[input.dataset.setting] = input.value.trim();
    });
    return {name: byId("tune-name").value.trim(), settings, share: Number(byId("tune-share").value)};
  };

  const showCommand = async () => {
    const {name, settings} = wished();
    try {
      byId("tune-command").textContent = (await ask("POST", "command", {name, settings})).command;
    } catch (error) { byId("tune-command").textContent = error.message; }
  };

  const start = told(async () => {
    const run = wished();
    await ask("POST", "runs", run);
    tell(say("started", {name: run.name}), "good");
    delete byId("tune-name").dataset.own;
    await refresh();
    suggest();
  });

  // The form as YAML, and YAML in the form; what the form has no place for is refused by name.
  const showYaml = told(async () => {
    const {name, settings} = wished();
    byId("tune-yaml").value = (await ask("POST", "yaml", {name, settings})).yaml;
  });

  const takeYaml = told(async () => {
    const {name, settings} = await ask("POST", "settings", {yaml: byId("tune-yaml").value});
    const places = {base: "base", method: "method", objective: "objective",
      "training.max_minutes": "minutes", "checks.challengers": "challengers"};
    const fields = new Map();
    const source = [settings.data ?? []].flat();
    for (const [key, value] of Object.entries(settings)) {
      if (key === "data") continue;
      const field = places[key] ? byId(`tune-${places[key]}`)
        : document.querySelector(`#tune-settings [data-setting="${CSS.escape(key)}"]`);
      const text = [value].flat().map((one) => typeof one === "object"
        ? Object.entries(one).map((pair) => pair.join(":")).join(",") : String(one)).join(",");
      const isKnown = field && (field.tagName !== "SELECT" || [...field.options].some((one) => one.value === text));
      if (!isKnown) throw new Error(say("yaml_unknown", {key: `${key}: ${text}`}));
      fields.set(field, text);
    }
    if (source.length > 1) throw new Error(say("yaml_unknown", {key: `data: ${source.join(", ")}`}));
    document.querySelectorAll("#tune-settings [data-setting]").forEach((field) => { field.value = ""; });
    byId("tune-minutes").value = "";
    byId("tune-challengers").value = "none";
    for (const [field, text] of fields) field.value = text;
    if (name) { byId("tune-name").value = name; byId("tune-name").dataset.own = "yes"; }
    if (source.length) {
      const select = byId("tune-data"), known = fileOf(source[0]);
      const isListed = [...select.options].some((one) => one.value === known);
      select.value = isListed ? known : "hub";
      if (!isListed) byId("tune-hub").value = source[0];
      showHub();
    }
    showChallengers();
    tell(say("yaml_taken"), "good");
  });

  const upload = told(async (name, content) => {
    await keepFile(await ask("PUT", `data/${encodeURIComponent(name)}`, content, "application/octet-stream"));
  });

  const keepFile = window.arena.tuneKept = async (kept) => {
    choices.files = [kept, ...choices.files.filter((one) => one.name !== kept.name)];
    showFiles(kept.name);
    tell(say("kept", {name: kept.name}), "good");
    await look();
  };

  const pasted = () => {
    const text = byId("tune-rows").value;
    const first = text.trimStart()[0];
    const suffix = first === "{" ? "jsonl" : first === "[" ? "json" : "csv";
    return upload(`pasted.${suffix}`, text);
  };

  // -- the rows as they would be trained ----------------------------------------------------

  const look = told(async () => {
    const box = byId("tune-preview");
    box.hidden = false;
    box.setAttribute("aria-busy", "true");
    box.replaceChildren(made("p", "muted", say("looking")));
    try {
      const {settings} = wished();
      showPreview(box, await ask("POST", "preview", {settings, rows: 6}));
    } catch (error) {
      box.replaceChildren(made("p", "tune-error", error.message));
    } finally { box.removeAttribute("aria-busy"); }
  });

  const showPreview = (box, found) => {
    const lines = made("ul", "tune-lines");
    lines.append(...found.lines.filter((line) => !line.startsWith("left out ")).map((line) => made("li", "", line)),
      made("li", "", found.end));
    const rows = found.rows.map((row) => {
      const entry = made("article", "tune-row");
      const head = say("place", {place: fileOf(row.place), trained: row.trained, tokens: row.tokens});
      const text = made("pre");
      text.tabIndex = 0;
      text.append(...row.pieces.map((piece) => made(piece.trained ? "mark" : "span", "", piece.text)));
      entry.append(made("p", "muted", head), text);
      return entry;
    });
    box.replaceChildren(made("h2", "", say("look")), lines, made("p", "muted", say("legend")), ...rows, badRows(found));
  };

  const fileOf = (place) => place.replace(/^.*\//, "");

  const badRows = (found) => {
    const box = made("div", "tune-bad");
    if (!found.num_bad_rows) return box;
    const table = made("table", "sheet");
    const heads = made("tr");
    heads.append(...["line", "field", "reason"].map((key) => {
      const cell = made("th", "", say(key));
      cell.scope = "col";
      return cell;
    }));
    const head = made("thead");
    head.append(heads);
    const body = made("tbody");
    body.append(...found.bad_rows.slice(0, 100).map((bad) => {
      const row = made("tr");
      row.append(made("td", "", `${fileOf(bad.source)}:${bad.line}`), made("td", "", bad.field), made("td", "", bad.reason));
      return row;
    }));
    table.append(head, body);
    const scroll = made("div", "table-scroll");
    scroll.tabIndex = 0;
    scroll.append(table);
    box.append(made("h3", "", `${say("bad")} (${number(found.num_bad_rows)})`), scroll);
    return box;
  };

  // -- runs ---------------------------------------------------------------------------------

  const refresh = async () => {
    const {runs} = await ask("GET", "runs");
    const going = runs.find((run) => GOING.includes(run.state));
    if (going && !compared.has(going.name)) compared.set(going.name, true);
    const wanted = runs.filter((run) => compared.get(run.name));
    const whole = await Promise.all(wanted.map((run) => ask("GET", `runs/${run.name}`).catch(() => null)));
    showRuns(runs, whole.filter(Boolean));
  };

  const showRuns = (runs, whole) => {
    const holder = byId("tune-runs");
    if (!holder) return;
    if (!runs.length) holder.replaceChildren(made("p", "nothing", say("no_runs")));
    else holder.querySelector(":scope > .nothing")?.remove();
    const names = new Set(runs.map((run) => run.name));
    for (const [name, card] of cards) if (!names.has(name)) { card.remove(); cards.delete(name); }
    runs.forEach((run, at) => {
      let card = cards.get(run.name);
      if (!card) cards.set(run.name, card = newCard(run));
      fill(card, run, whole.find((one) => one.name === run.name));
      if (holder.children[at] !== card) holder.insertBefore(card, holder.children[at] || null);
    });
    for (const run of runs) {
      const card = cards.get(run.name);
      if (run.state === "done" && !run.loop && (card.dataset.busy === "yes" || !card.dataset.after)) {
        card.dataset.after = "asked";
        told(showAfter)(card, run.name);
      }
    }
    const named = {loss: say("loss"), heldout: say("heldout")};
    window.arena.drawCurves(byId("tune-chart"), whole, named, number);
  };

  const newCard = (run) => {
    const card = made("article", "tune-run");
    const head = made("header");
    head.append(made("h3", "", run.name), made("span", "chip"), made("span", "muted about"));
    const bar = made("progress");
    bar.max = 1;
    bar.setAttribute("aria-label", run.name);
    const acts = made("div", "tune-buttons");
    for (const act of ["stop", "resume", "anew", "compare", "score", "card", "export", "remove"]) {
      const button = made("button", "act", say(act));
      button.type = "button";
      button.dataset.tune = act;
      button.setAttribute("aria-label", `${say(act)}: ${run.name}`);
      acts.append(button);
    }
    const inChart = made("label", "tune-in-chart");
    const box = made("input");
    box.type = "checkbox";
    box.dataset.chart = run.name;
    inChart.append(box, made("span", "", say("show")));
    acts.append(inChart);
    card.append(head, bar, made("dl", "tune-figures"), made("p", "tune-error"), acts, made("div", "tune-samples"),
      made("div", "tune-after"), made("div", "tune-after tune-loop"), window.arena.watchBox(say, run.name));
    card.dataset.name = run.name;
    return card;
  };

  const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };

  const fill = (card, run, whole) => {
    const by = run.by === "terminal" && run.state !== "done" ? ` · ${say("from_terminal")}` : "";
    set(card.querySelector(".chip"), say(`state_${run.state}`));
    card.dataset.state = run.state;
    set(card.querySelector(".about"), [run.base, run.method, run.objective].filter(Boolean).join(" · ") + by);
    const bar = card.querySelector("progress");
    bar.hidden = run.state === "queued" || run.state === "done";
    bar.value = run.progress || 0;
    const facts = run.step === null ? [] : [
      [say("step"), run.steps ? `${number(run.step, 9)} / ${number(run.steps, 9)}` : number(run.step, 9)],
      [say("loss"), number(run.loss)],
      [say("heldout"), number(run.heldout_loss)],
      [say("rate"), number(run.learning_rate, 3)],
      ...(run.tokens_per_second ? [[say("speed"), number(run.tokens_per_second, 3)]] : []),
      ...(GOING.includes(run.state) ? [[say("left"), duration(run.seconds_left)]] : [[say("took"), duration(run.seconds)]]),
    ];
    const list = card.querySelector("dl");
    if (list.children.length !== facts.length) {
      list.replaceChildren(...facts.map(() => {
        const pair = made("div");
        pair.append(made("dt"), made("dd"));
        return pair;
      }));
    }
    facts.forEach(([name, value], at) => {
      set(list.children[at].firstChild, name);
      set(list.children[at].lastChild, value);
    });
    set(card.querySelector(".tune-error"),
      run.state === "failed" ? run.said : run.state === "cut_off" ? say("cut_off_note") : "");
    const isVariant = run.state === "done" && !run.loop;
    const canWrite = isVariant && run.objective !== "reward";
    const may = {
      stop: run.state === "queued" || GOING.includes(run.state) && run.state !== "stopping",
      resume: run.can_resume, anew: run.can_resume,
      compare: canWrite, score: canWrite, card: isVariant, export: canWrite,
      remove: !GOING.includes(run.state),
    };
    card.querySelectorAll("[data-tune]").forEach((button) => { button.hidden = !may[button.dataset.tune]; });
    card.querySelector("[data-chart]").checked = Boolean(compared.get(run.name));
    card.dataset.base = run.base;
    card.querySelector(".tune-watch").hidden = !run.checkpoints.length;
    window.arena.fillLoop(card.querySelector(".tune-loop"), run, say, tell);
    showSamples(card.querySelector(".tune-samples"), whole ? whole.samples : []);
  };

  // The newest answers beside the first ones.
  const showSamples = (box, samples) => {
    const key = samples.length ? `${samples[0].step}-${samples.at(-1).step}` : "";
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    box.replaceChildren();
    if (!samples.length) return;
    const steps = samples.length > 1 ? [samples[0], samples.at(-1)] : [samples[0]];
    const table = made("table", "sheet");
    const heads = made("tr");
    heads.append(...[say("prompt"), ...steps.map(({step}) => say("after", {step: number(step, 9)}))].map((text) => {
      const cell = made("th", "", text);
      cell.scope = "col";
      return cell;
    }));
    const head = made("thead");
    head.append(heads);
    const body = made("tbody");
    samples.at(-1).samples.forEach((sample, at) => {
      const row = made("tr");
      const first = made("th", "", sample.prompt);
      first.scope = "row";
      row.append(first, ...steps.map(({samples: list}) => made("td", "", list[at]?.answer ?? "")));
      body.append(row);
    });
    table.append(head, body);
    const scroll = made("div", "table-scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", say("samples"));
    scroll.append(table);
    box.append(scroll);
  };

  // -- what comes after a run ---------------------------------------------------------------

  const showAfter = async (card, name) => {
    const {card: text, jobs} = await ask("GET", `runs/${name}/after`);
    const parts = [];
    for (const [kind, job] of Object.entries(jobs)) {
      if (job.state === "running") parts.push(made("p", "muted", say(`${kind}_running`)));
      else if (job.error) parts.push(made("p", "tune-error", job.error));
      else if (kind === "score") parts.push(...scores(job.result, name));
      else parts.push(made("p", "", say("exported", {path: job.result.path})));
    }
    if (card.dataset.card) {
      const whole = made("pre", "tune-card-text", text);
      whole.tabIndex = 0;
      parts.push(whole);
    }
    const box = card.querySelector(".tune-after");
    const key = JSON.stringify([jobs, card.dataset.card]);
    if (box.dataset.key !== key) { box.dataset.key = key; box.replaceChildren(...parts); }
    card.dataset.busy = Object.values(jobs).some((job) => job.state === "running") ? "yes" : "";
  };

  // Shares passed with their intervals, the base first; what to try where the variant is no better.
  const scores = (result, name) => {
    const share = (value) =>
      value.toLocaleString(page.lang, {style: "percent", maximumFractionDigits: 1});
    const table = made("table", "sheet tune-scores");
    const heads = made("tr"), head = made("thead"), body = made("tbody");
    heads.append(...["model", "passed", "interval", "forgotten"].map((key) => {
      const cell = made("th", "", say(key));
      cell.scope = "col";
      return cell;
    }));
    result.results.forEach((one) => {
      const row = made("tr");
      const first = made("th", "", one.name);
      first.scope = "row";
      const ratio = one.base_perplexity ? number(one.perplexity / one.base_perplexity, 3) : "–";
      row.append(first, made("td", "", share(one.accuracy)),
        made("td", "", `${share(one.lower)} – ${share(one.upper)}`), made("td", "", ratio));
      body.append(row);
    });
    head.append(heads);
    table.append(head, body);
    const scroll = made("div", "table-scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", `${say("score")}: ${name}`);
    scroll.append(table);
    const count = result.results[0].num_prompts;
    const parts = [made("p", "muted", say("asked", {count, suite: result.suite})), scroll];
    const own = result.results.find((one) => one.name === name);
    const base = result.results.find((one) => one.name !== name);
    if (base && own.accuracy <= base.accuracy) parts.push(made("p", "", say("try_next")));
    return parts;
  };

  const press = told(async (button) => {
    const card = button.closest("[data-name]");
    const {name, base} = card.dataset;
    const act = button.dataset.tune;
    if (act === "compare") {
      const names = [base, name].filter(Boolean).join(",");
      window.location.assign(`${window.location.pathname}?models=${encodeURIComponent(names)}`);
      return;
    }
    if (act === "remove" && !button.dataset.sure) {
      button.dataset.sure = "yes";
      button.textContent = say("really");
      setTimeout(() => { delete button.dataset.sure; button.textContent = say("remove"); }, SURE_MS);
      return;
    }
    if (act === "card") {
      card.dataset.card = card.dataset.card ? "" : "open";
      button.setAttribute("aria-expanded", String(Boolean(card.dataset.card)));
    }
    if (act === "score") await ask("POST", `runs/${name}/score`);
    if (act === "export") await ask("POST", `runs/${name}/export`, {to: "gguf"});
    if (["card", "score", "export"].includes(act)) { await showAfter(card, name); return; }
    if (act === "stop") await ask("POST", `runs/${name}/stop`);
    if (act === "resume") await ask("POST", `runs/${name}/resume`, {restart: false});
    if (act === "anew") await ask("POST", `runs/${name}/resume`, {restart: true});
    if (act === "remove") await ask("DELETE", `runs/${name}`);
    tell("");
    await refresh();
  });

  // -- events -------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target.closest("button") : null;
    if (!target || !page || !page.contains(target)) return;
    if (target.dataset.tune) press(target);
    else if (target.id === "tune-look") look();
    else if (target.id === "tune-keep") pasted();
    else if (target.id === "tune-yaml-take") takeYaml();
    else if (target.id === "tune-paste") {
      const box = byId("tune-paste-box");
      box.hidden = !box.hidden;
      target.setAttribute("aria-expanded", String(!box.hidden));
      if (!box.hidden) byId("tune-rows").focus();
    }
  });
  document.addEventListener("submit", (event) => {
    if (event.target.id !== "tune-form") return;
    event.preventDefault();
    start();
  });
  document.addEventListener("input", (event) => {
    const {target} = event;
    if (!page || !page.contains(target)) return;
    if (target.id === "tune-name") target.dataset.own = "yes";
    if (target.dataset.chart) { compared.set(target.dataset.chart, target.checked); told(refresh)(); }
    if (target.id === "tune-data") {
      showHub();
      const objective = byId("tune-objective"); // votes compare answers
      if (target.value === "votes" && objective.value === "sft") objective.value = "dpo";
    }
    if (target.id === "tune-base" || target.id === "tune-method") suggest();
    showChallengers();
    if (target.id === "tune-file" && target.files[0]) {
      upload(target.files[0].name, target.files[0]);
      target.value = "";
    }
    if (document.querySelector(".tune-command[open]")) showCommand();
  });
  document.addEventListener("toggle", (event) => {
    if (event.target instanceof Element && event.target.matches(".tune-command[open]")) showCommand();
    if (event.target instanceof Element && event.target.matches(".tune-yaml[open]")) showYaml();
  }, true);

  const lookIn = async () => {
    const found = byId("tune-page");
    if (!found || document.hidden || !found.offsetParent || isAsking) return;
    isAsking = true;
    try {
      if (found !== page) {
        page = found;
        cards = new Map();
        words = JSON.parse(found.dataset.tuneWords);
        choices = null;
      }
      await refresh();
      if (!choices) await loadChoices();
    } catch (error) {
      tell(error.message, "bad");
    } finally { isAsking = false; }
  };
  setInterval(lookIn, EVERY_MS);
})();
