// What people do with texts: copying an answer or code, drafts that outlive a reload, and pastes that
// are too long. A draft stays in this tab of this browser.
(() => {
  "use strict";
  const {tell, words} = window.arena;
  const TOLD_MS = 1500;
  const LOOK_MS = 150;
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
  let isPromptTouched = false; // by the visitor: from then on it is theirs
  let seenDetails = ""; // whose details have been on the page
  let isFoldTheirs = false; // the visitor opened or closed it: from then on it is theirs
  let isRestoring = false;
  let saving = null; // what was sent to be stored

  const note = (event) => {
    if (isRestoring) return;
    if (closest(event.target, "#prompt")) {
      isPromptTouched = true;
      drafts.write("prompt", event.target.value);
    }
    if (!closest(event.target, "#details")) return;
    // Of what the event is not about, the draft holds: Gradio may just have painted over it.
    const kept = JSON.parse(drafts.read(detailsKey()) || "{}");
    const group = closest(event.target, "#strength");
    const isMeant = (one) => one === event.target || (group !== null && group.contains(one));
    const of = (one, now, before) => (isMeant(one) || before === undefined ? now : before);
    const told = {
      texts: texts().map((box, i) => of(box, box.value, kept.texts?.[i])),
      choices: choices().map((one, i) => of(one, one.checked, kept.choices?.[i])),
    };
    drafts.write(detailsKey(), JSON.stringify(told));
  };
  const isSaid = () => {
    const line = document.querySelector("#status .status-line.good");
    return line !== null && line.textContent === words().details_saved;
  };
  document.addEventListener("input", note);
  document.addEventListener("change", note);
  document.addEventListener("click", (event) => {
    if (event.isTrusted && closest(event.target, "#details > button")) isFoldTheirs = true;
    if (closest(event.target, "#new-battle")) drafts.write("prompt", "");
    if (closest(event.target, "#save-details")) {
      // Where "Saved." stands already nothing tells whether it is said anew: the draft is kept.
      saving = isSaid() ? null : {key: detailsKey(), kept: drafts.read(detailsKey())};
    }
  });
  window.arena.sent = () => drafts.write("prompt", "");

  const restorePrompt = () => {
    const box = promptBox();
    const kept = drafts.read("prompt");
    if (box && !isPromptTouched && kept && !box.value && !query().has("prompt")) type(box, kept);
  };
  const dropSaved = () => {
    if (!saving || !isSaid()) return;
    if (drafts.read(saving.key) === saving.kept) drafts.write(saving.key, "");
    saving = null;
  };
  // All that a visitor does is kept at once: what differs from it, Gradio has painted over.
  const restoreDetails = () => {
    const key = detailsKey();
    const kept = drafts.read(key);
    if (!kept || !document.querySelector("#details")) return;
    const isNew = seenDetails !== key;
    if (isNew) isFoldTheirs = false;
    const told = JSON.parse(kept);
    if (texts().length !== told.texts.length || choices().length !== told.choices.length) {
      const fold = document.querySelector("#details > button"); // what it hides is not on the page
      // Also once more: what the page is told of the battle as it loads may close it again.
      if (!isFoldTheirs && fold && !fold.classList.contains("open")) fold.click();
      return;
    }
    seenDetails = key;
    if (isNew) return; // Gradio sets the values of what it unfolds a frame after it stands
    texts().forEach((box, i) => { if (box.value !== told.texts[i]) type(box, told.texts[i]); });
    choices().forEach((one, i) => {
      const isFixed = one.type === "radio" && one.checked; // goes out as another one goes on
      if (one.checked !== told.choices[i] && !isFixed) one.click();
    });
  };
  const look = () => {
    setTimeout(() => requestAnimationFrame(look), LOOK_MS);
    isRestoring = true;
    try {
      restorePrompt();
      dropSaved();
      restoreDetails();
    } finally { isRestoring = false; }
  };
  look();

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
