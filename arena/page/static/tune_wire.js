// What the scripts of the tab Tune share: making an element, and asking its JSON API.
(() => {
  "use strict";
  window.arena.made = (name, kind = "", text = "") => {
    const node = document.createElement(name);
    if (kind) node.className = kind;
    if (text) node.textContent = text;
    return node;
  };
  // The reply; an Error says why there is none, `lost` where the server does not answer.
  window.arena.ask = async (lost, method, path, body, type = "application/json") => {
    const given = body === undefined ? {}
      : {body: type === "application/json" ? JSON.stringify(body) : body, headers: {"content-type": type}};
    let reply;
    try {
      reply = await fetch(`api/tune/${path}`, {method, ...given});
    } catch { throw new Error(lost); }
    const told = reply.status === 204 ? {} : await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(told.error || told.detail || `${reply.status}`);
    return told;
  };
})();
