// The votes on the leaderboard that no reward model has seen yet, and the press that learns from
// them. Filled when an admin opens the leaderboard; the runs themselves are in the tab Tune.
(() => {
  "use strict";
  const EVERY_MS = 700;
  const OLD_MS = 10_000;
  let words = {};

  const ask = (...given) => window.arena.ask(words.lost, ...given);
  const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  const tell = (text, tone) => {
    const line = document.getElementById("votes-status");
    line.textContent = text;
    line.className = `status-line ${tone}`;
  };

  const fill = async (section) => {
    section.dataset.filled = String(Date.now());
    words = JSON.parse(section.dataset.votesWords);
    const found = await ask("GET", "votes");
    section.hidden = false;
    const text = found.has_reward_model ? words.votes_new : words.votes_all;
    const count = found.new.toLocaleString(document.documentElement.lang || undefined);
    document.getElementById("votes-new").textContent = filled(text, {count});
    const select = document.getElementById("votes-base");
    const chosen = select.value;
    if ([...select.options].map((one) => one.value).join("\n") !== found.bases.join("\n")) {
      select.replaceChildren(...found.bases.map((name) => new Option(name, name)));
      if (found.bases.includes(chosen)) select.value = chosen;
    }
    document.getElementById("votes-form").hidden = !found.new || !found.bases.length;
    if (found.new && !found.bases.length) tell(words.votes_none, "");
  };

  const start = async () => {
    const base = document.getElementById("votes-base").value;
    const controls = document.getElementById("votes-controls").checked;
    const button = document.getElementById("votes-start");
    button.disabled = true;
    try {
      const {name} = await ask("POST", "loops", {base, controls});
      tell(filled(words.votes_started, {name}), "good");
    } catch (error) { tell(error.message, "bad"); } finally { button.disabled = false; }
  };

  document.addEventListener("submit", (event) => {
    if (event.target.id !== "votes-form") return;
    event.preventDefault();
    start();
  });
  setInterval(() => {
    const section = document.getElementById("tune-votes");
    const isOpen = section && !document.hidden && section.parentElement.offsetParent;
    if (!isOpen || Date.now() - Number(section.dataset.filled || 0) < OLD_MS) return;
    fill(section).catch((error) => tell(error.message, "bad"));
  }, EVERY_MS);
})();
