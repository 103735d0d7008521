// Keyboard, help, and the battle's link in the address bar. All state is the server's.
(() => {
  "use strict";
  const keys = {
    "1": "vote-a", "2": "vote-b", "3": "vote-tie", "4": "vote-both-bad",
    s: "vote-skip", n: "new-battle",
  };
  const byId = (id) => document.getElementById(id);
  const isTyping = (node) =>
    node && (/^(INPUT|TEXTAREA|SELECT)$/.test(node.tagName) || node.isContentEditable);

  // A button of Gradio is the element with the id, or lies inside it.
  const press = (id) => {
    const holder = byId(id);
    const button = holder && (holder.matches("button") ? holder : holder.querySelector("button"));
    if (!button || button.disabled) return false;
    button.click();
    return true;
  };
  const promptBox = () => document.querySelector("#prompt textarea, #prompt input");

  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const help = byId("help");
    if (help && help.open) return;
    if (event.key === "Escape") {
      if (isTyping(event.target)) event.target.blur();
      else press("stop");
      return;
    }
    if (isTyping(event.target)) return;
    if (event.key === "?") { if (help) help.showModal(); event.preventDefault(); return; }
    if (event.key === "/") {
      const box = promptBox();
      if (box) { box.focus(); event.preventDefault(); }
      return;
    }
    const id = keys[event.key.toLowerCase()];
    if (id && press(id)) event.preventDefault();
  });

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const help = byId("help");
    if (!target || !help) return;
    if (target.closest("[data-help]")) help.showModal();
    else if (target.closest("[data-close]") || target === help) help.close();
  });

  // The server says which battle is shown; the address bar follows, so that a reload finds it.
  window.arenaLink = (battle, token) => {
    const url = new URL(window.location.href);
    for (const [key, value] of [["battle", battle], ["t", token]]) {
      if (value) url.searchParams.set(key, value);
      else url.searchParams.delete(key);
    }
    if (url.href !== window.location.href) window.history.replaceState(null, "", url);
  };
})();
