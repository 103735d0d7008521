// Keyboard, help, and ways to look at the answers. All state is the server's.
(() => {
  "use strict";
  const {tell, words, checkPlace} = window.arena;
  const OFF = "arena.keys"; // in the browser's storage: single keys do nothing
  const ASK_MS = 6000;
  const asks = {s: "ask_skip", r: "ask_again"}; // what spoils or replaces answers is pressed twice
  let asked = {key: "", until: 0};
  const keys = {
    "1": "vote-a", "2": "vote-b", "3": "vote-tie", "4": "vote-both-bad",
    s: "vote-skip", u: "undo", r: "again", n: ["next-in-set", "new-battle"],
  };
  const byId = (id) => document.getElementById(id);
  const isTyping = (node) =>
    node && (/^(INPUT|TEXTAREA|SELECT)$/.test(node.tagName) || node.isContentEditable);

  // A button of Gradio is the element with the id, or lies inside it.
  const live = (id) => {
    const holder = byId(id);
    const button = holder && (holder.matches("button") ? holder : holder.querySelector("button"));
    return button && !button.disabled ? button : null;
  };
  const press = (id) => {
    const button = live(id);
    if (button) button.click();
    return Boolean(button);
  };
  const areOn = () => { try { return localStorage.getItem(OFF) !== "off"; } catch { return true; } };
  // Letters and digits do nothing where text can be selected: who types there means no button.
  const isReading = (node) => {
    const selection = window.getSelection();
    return (selection && !selection.isCollapsed)
      || (node instanceof Element && node.closest(".pane-body, pre, .token-text"));
  };
  const hasAsked = (key) => {
    const isSecond = asked.key === key && Date.now() < asked.until;
    asked = {key: isSecond ? "" : key, until: Date.now() + ASK_MS};
    if (!isSecond) tell(words()[asks[key]], {key}, "");
    return isSecond;
  };
  const promptBox = () => document.querySelector("#prompt textarea, #prompt input");

  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const help = byId("help");
    if (help && help.open) return;
    if (event.key === "Escape") {
      if (isTyping(event.target)) { event.target.blur(); return; }
      if (isReading(event.target)) document.activeElement.blur();
      press("stop");
      return;
    }
    if (isTyping(event.target) || !areOn()) return;
    const key = event.key.toLowerCase();
    if (/^[a-z0-9]$/.test(key) && isReading(event.target)) return;
    if (event.key === "?") { byId("masthead").querySelector("[data-help]").click(); event.preventDefault(); return; }
    if (event.key === "/") {
      const box = promptBox();
      if (box) { box.focus(); event.preventDefault(); }
      return;
    }
    const ids = [keys[key] || []].flat();
    if (!ids.some(live)) return;
    event.preventDefault();
    if (!asks[key] || hasAsked(key)) ids.some(press);
  });

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const help = byId("help");
    if (!target || !help) return;
    const toggle = target.closest("[data-keys]");
    if (toggle) {
      try { localStorage.setItem(OFF, areOn() ? "off" : "on"); } catch { /* it keeps nothing */ }
    }
    help.querySelector("[data-keys]").setAttribute("aria-pressed", String(areOn()));
    if (target.closest("[data-help]")) help.showModal();
    else if (target.closest("[data-close]") || target === help) help.close();
  });

  // Enlarge one answer; press again for all.
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element && event.target.closest("[data-focus]");
    const panes = byId("panes");
    if (!button || !panes) return;
    const holder = [...panes.children].find((child) => child.contains(button));
    if (!holder) return;
    const enlarge = !holder.classList.contains("is-enlarged");
    panes.querySelectorAll(".is-enlarged").forEach((node) => node.classList.remove("is-enlarged"));
    holder.classList.toggle("is-enlarged", enlarge);
    panes.classList.toggle("is-focused", enlarge);
    panes.querySelectorAll("[data-focus]").forEach((node) => {
      node.setAttribute("aria-pressed", String(enlarge && holder.contains(node)));
    });
  });

  // Scroll together: the same share of each answer's height.
  let together = false;
  let leader = null;
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element && event.target.closest("[data-sync]");
    if (!button) return;
    together = !together;
    button.setAttribute("aria-pressed", String(together));
  });
  document.addEventListener("scroll", (event) => {
    const from = event.target;
    if (!together || !(from instanceof Element) || !from.classList.contains("pane-body")) return;
    if (leader && leader !== from) return;
    leader = from;
    const share = from.scrollTop / Math.max(1, from.scrollHeight - from.clientHeight);
    document.querySelectorAll(".pane-body").forEach((body) => {
      if (body !== from) body.scrollTop = share * (body.scrollHeight - body.clientHeight);
    });
    requestAnimationFrame(() => requestAnimationFrame(() => { leader = null; }));
  }, true);

  checkPlace();

  // The page's language is the one its words came in.
  new MutationObserver(() => {
    const head = document.querySelector("[data-language]");
    if (head && document.documentElement.lang !== head.dataset.language) {
      document.documentElement.lang = head.dataset.language;
    }
  }).observe(document.documentElement, {childList: true, subtree: true, attributes: true,
    attributeFilter: ["data-language"]});
})();
