// What people do with texts: copying an answer or code, drafts that outlive a reload, and pastes that
// are too long. A draft stays in this tab of this browser.
(() => {
  "use strict";
  const {tell, words} = window.arena;
  const TOLD_MS = 1500;
  const closest = (node, selector) => (node instanceof Element ? node.closest(selector) : null);

  // -- copying ------------------------------------------------------------------------------

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // a page without TLS has no such clipboard
      const before = document.activeElement;
      const box = document.createElement("textarea");
      box.value = text;
      box.style.cssText = "position:fixed;opacity:0";
      document.body.append(box);
      box.select();
      const done = document.execCommand("copy");
      box.remove();
      if (before) before.focus();
      return done;
    }
  };

  document.addEventListener("click", async (event) => {
    const button = closest(event.target, "[data-copy]");
    if (!button || button.classList.contains("is-copied")) return;
    const text = button.dataset.text ?? button.parentElement.querySelector("code").textContent;
    if (!await copy(text)) return;
    const label = button.textContent;
    button.classList.add("is-copied");
    button.textContent = words().copied;
    setTimeout(() => {
      button.classList.remove("is-copied");
      button.textContent = label;
    }, TOLD_MS);
  });

  // -- drafts -------------------------------------------------------------------------------

  const drafts = {
    read: (key) => { try { return sessionStorage.getItem(`arena.${key}`); } catch { return null; } },
    write: (key, text) => {
      try {
        if (text) sessionStorage.setItem(`arena.${key}`, text);
        else sessionStorage.removeItem(`arena.${key}`);
      } catch { /* a browser that keeps nothing */ }
    },
  };
  const promptBox = () => document.querySelector("#prompt textarea");
  const query = () => new URLSearchParams(window.location.search);
  const type = (box, text) => {
    box.value = text;
    box.dispatchEvent(new Event("input", {bubbles: true}));
  };
  const choices = () => [...document.querySelectorAll("#strength input, #reasons input")];
  const texts = () => [...document.querySelectorAll("#comment textarea, #edited textarea")];
  const detailsKey = () => `details.${query().get("battle")}`;
  let isPromptRestored = false;
  let restoredDetails = "";

  const note = (event) => {
    if (closest(event.target, "#prompt")) drafts.write("prompt", event.target.value);
    if (!closest(event.target, "#details")) return;
    const told = {texts: texts().map((box) => box.value), choices: choices().map((one) => one.checked)};
    restoredDetails = detailsKey(); // what is being said now is newer than what was kept
    drafts.write(restoredDetails, JSON.stringify(told));
  };
  document.addEventListener("input", note);
  document.addEventListener("change", note);
  document.addEventListener("click", (event) => {
    if (closest(event.target, "#new-battle")) drafts.write("prompt", "");
  });
  window.arena.sent = () => drafts.write("prompt", "");

  const restorePrompt = () => {
    const box = promptBox();
    if (!box || isPromptRestored) return;
    isPromptRestored = true;
    const kept = drafts.read("prompt");
    if (kept && !box.value && !query().has("prompt")) type(box, kept);
  };
  const restoreDetails = () => {
    const line = document.querySelector("#status .status-line.good");
    if (line && line.textContent === words().details_saved) drafts.write(detailsKey(), "");
    if (restoredDetails === detailsKey() || !document.querySelector("#details")) return;
    const kept = drafts.read(detailsKey());
    if (!kept) return;
    if (!texts().length) { // what is folded away is not on the page
      const fold = document.querySelector("#details > button");
      if (fold && !fold.classList.contains("open")) fold.click();
      return;
    }
    restoredDetails = detailsKey();
    const told = JSON.parse(kept);
    texts().forEach((box, i) => { if (told.texts[i]) type(box, told.texts[i]); });
    choices().forEach((one, i) => { if (told.choices[i] && !one.checked) one.click(); });
  };
  let isDue = false;
  new MutationObserver(() => {
    if (isDue) return;
    isDue = true;
    setTimeout(() => { isDue = false; restorePrompt(); restoreDetails(); }, 100);
  }).observe(document.documentElement, {childList: true, subtree: true});

  // -- pastes -------------------------------------------------------------------------------

  document.addEventListener("paste", (event) => {
    const box = closest(event.target, "#arena textarea");
    if (!box) return;
    const isPrompt = closest(box, "#prompt") !== null;
    const limit = isPrompt ? window.arena.limit() : box.maxLength;
    const pasted = event.clipboardData.getData("text").length;
    const count = box.value.length - (box.selectionEnd - box.selectionStart) + pasted;
    if (limit < 1 || count <= limit) return;
    tell(words()[isPrompt ? "prompt_long" : "pasted_long"], {count, limit});
  });
})();
