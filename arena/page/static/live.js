// Asks for answers, judges them, and writes them into their panes as they come. All state is the
// server's: an act is posted and tells what changes. No press is lost in silence: one that has no
// answer in time is said to have none, and can be repeated. Where answers are written, the reply goes on as a stream that tells each step of the
// answers. A page that was reloaded, or lost its stream, asks for the stream alone.
(() => {
  "use strict";
  const LETTERS = "abcdefgh";
  const LINK_KEYS = ["battle", "t"]; // in the order in which the server writes them
  const SETTLE_MS = 700; // how long "ask again" takes no press after an answer has ended
  const ASKING = ["send", "again", "next"]; // not while answers are written
  const PATIENCE_MS = 8000; // how long an act may go without an answer before that is said
  const GIVE_UP_MS = 20000; // how long one of Gradio's may, before it can be repeated
  const TAKE_UP_MS = 3000; // how long Gradio's page may take to show what an act changed
  let shown = {link: "", run: ""};
  let source = null; // the stream of the battle that is being written
  let followed = ""; // its link
  let run = ""; // its run of answers: only panes of this run are written into
  let sides = []; // what each pane has been told
  let waiting = []; // changes that Gradio's page has not taken up yet, by place of the element
  let pending = ""; // the act that is waited for
  let latest = null; // the last one that was begun: what is told of those before is old
  let repaint = 0;
  let hasShown = false; // the battle that the page was opened with: from then on it is heard
  let nowHeard = () => {};
  const heard = new Promise((resolve) => { nowHeard = resolve; });
  let takeUp = () => {}; // notes that Gradio's page shows the battle that was just asked

  const byId = (id) => document.getElementById(id);
  const parsed = (html) => {
    const made = document.createElement("template");
    made.innerHTML = html;
    return made.content;
  };

  const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

  // -- acts ---------------------------------------------------------------------------------

  const words = () => JSON.parse(document.querySelector("[data-words]")?.dataset.words || "{}");
  const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content || "";
  const limit = () => Number(meta("arena-prompt-limit"));

  // A line of the page's own words; `values` stand in them in braces.
  const tell = (text, values = {}, tone = "bad") => {
    const line = document.querySelector("#status .status-line");
    if (!line) return;
    line.textContent = (text || "").replace(/\{(\w+)\}/g, (_, name) => values[name]);
    line.className = `status-line ${tone}`;
  };

  // A line above the page, for what has no place in it.
  const note = (text) => {
    const line = document.createElement("p");
    line.className = "place-note";
    line.setAttribute("role", "alert");
    line.textContent = text;
    document.body.prepend(line);
    return line;
  };

  // The reader's words come with the page's first answer; these are for who has none yet.
  const unheard = () => {
    const texts = JSON.parse(meta("arena-unheard"));
    const wanted = navigator.languages.map((tag) => tag.toLowerCase());
    const known = wanted.flatMap((tag) => [tag, tag.split("-")[0]]).find((tag) => texts[tag]);
    return texts[known || "en"];
  };
  let unheardNote = null;
  const tellUnheard = () => {
    if (!hasShown && !unheardNote && document.body) unheardNote = note(unheard());
  };

  const post = async (name, body, mine = latest) => {
    try {
      const reply = await fetch(`live/${name}`, {
        method: "POST",
        headers: {"content-type": "application/json", accept: "text/event-stream, application/json"},
        body: JSON.stringify(body),
      });
      if (mine !== latest) {
        if (reply.body) reply.body.cancel().catch(() => {});
        return {};
      }
      const type = reply.headers.get("content-type") || "";
      if (type.startsWith("text/event-stream")) return await readOn(reply.body.getReader());
      const told = await reply.json();
      if (reply.ok) return told.changes;
      if (reply.status !== 413) tell(told.error);
      else tell(words().prompt_long, {count: (body.prompt || "").length, limit: limit()});
    } catch {
      if (mine === latest && name !== "after") tell(words().lost);
    }
    return {};
  };

  // The reply to an act that goes on: its first message is what changes, the others are the answers.
  const readOn = async (reader) => {
    const messages = messagesOf(reader);
    const {changes, link, run: begun} = (await messages.next()).value;
    close();
    const mine = source = {close: () => reader.cancel().catch(() => {})};
    followed = link;
    const isTakenUp = new Promise((resolve) => {
      takeUp = () => { if (shown.link === link && shown.run === begun) resolve(); };
      setTimeout(resolve, TAKE_UP_MS);
    });
    (async () => {
      try {
        await isTakenUp; // what is told later must not be painted over by what was told before
        for await (const message of messages) {
          if (source !== mine) return;
          hear(message);
        }
      } catch { /* lost, as at an end that came too early */ }
      if (source === mine) follow(link);
    })();
    return changes;
  };

  async function* messagesOf(reader) {
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;
      const events = (rest + decoder.decode(value, {stream: true})).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        if (event.startsWith("data: ")) yield JSON.parse(event.slice(6));
      }
    }
  }

  // What an event of Gradio returns: a list with a value for each place that changes.
  const asList = (changes) => {
    const list = [];
    for (const [place, change] of Object.entries(changes)) list[Number(place)] = change;
    return list;
  };

  const act = async (name, body) => {
    if (pending) {
      if (pending !== name) tell(words().one_by_one);
      return [];
    }
    if (!hasShown) { // a press that was quicker than the page waits for it
      pending = name;
      await Promise.race([heard, sleep(PATIENCE_MS)]);
      pending = "";
      if (!hasShown) { tellUnheard(); return []; }
    }
    if (ASKING.includes(name) && shown.run) { tell(words().still_writing); return []; }
    pending = name;
    const mine = latest = {};
    const reply = post(name, body, mine);
    const told = await Promise.race([reply, sleep(PATIENCE_MS)]);
    pending = "";
    if (told) return taken(name, body, told);
    tell(words().no_answer);
    reply.then((late) => { // unless something else was asked for since
      if (mine !== latest || !Object.keys(late).length) return;
      waiting = Object.assign(waiting, taken(name, body, late));
      apply();
    });
    return [];
  };

  // What an act has led to, with what follows from it.
  const taken = (name, body, told) => {
    const isDone = Object.keys(told).length > 1; // else it was refused
    if (name === "send" && isDone) window.arena.sent();
    if (["vote", "rank"].includes(name) && isDone) {
      post("after", body).then((more) => { waiting = Object.assign(waiting, asList(more)); apply(); });
    }
    return asList(told);
  };

  // Gradio's own acts go through its queue: where one is not even taken in, that is said as well.
  const fetched = window.fetch;
  window.fetch = async (input, options = {}) => {
    if (!String(input.url || input).includes("/gradio_api/queue/join")) return fetched(input, options);
    const given = new AbortController();
    let line = null;
    const timers = [
      setTimeout(() => { if (hasShown) line = note(words().no_answer); }, PATIENCE_MS),
      setTimeout(() => { if (hasShown) given.abort(); }, GIVE_UP_MS),
    ];
    try {
      return await fetched(input, {...options, signal: given.signal});
    } finally {
      timers.forEach(clearTimeout);
      if (line) setTimeout(() => line.remove(), given.signal.aborted ? PATIENCE_MS : 0);
    }
  };

  // Changes that no event of Gradio asked for: a hidden button's event takes them up.
  const apply = () => {
    if (!hasShown) return; // nor is it heard yet
    const button = byId("apply-changes");
    const found = button && (button.matches("button") ? button : button.querySelector("button"));
    if (found) found.click();
    else waiting = []; // the page does not stand yet; when it does, it asks for all of this
  };

  const changes = async () => {
    const list = waiting;
    waiting = [];
    setTimeout(() => {
      document.querySelectorAll("[data-fresh]").forEach((node) => {
        node.disabled = false;
        node.removeAttribute("data-fresh");
      });
    }, SETTLE_MS);
    return list;
  };

  // A press counts for what the button was when it began: it may change under the finger.
  let pressed = null;
  document.addEventListener("pointerdown", (event) => {
    const button = event.target instanceof Element && event.target.closest("[data-act]");
    pressed = button ? {button, act: button.dataset.act} : null;
  }, true);
  document.addEventListener("click", async (event) => {
    const button = event.target instanceof Element && event.target.closest("#panes [data-act], #reveal [data-act]");
    if (!button) return;
    const meant = event.detail && pressed && pressed.button === button ? pressed.act : null;
    if (meant && meant !== button.dataset.act) return;
    const body = {link: shown.link, side: Number(button.dataset.side)};
    waiting = Object.assign(waiting, await act(button.dataset.act, body));
    apply();
  });

  // -- answers ------------------------------------------------------------------------------

  // The pane's frame, patched so that focus, scrolling and enlarging stay as they are.
  const paintFrame = (article, frame) => {
    const made = parsed(frame).firstElementChild;
    const body = article.querySelector(".pane-body");
    const head = article.querySelector(".pane-head");
    const newBody = made.querySelector(".pane-body");
    const hadFocus = head.contains(document.activeElement);
    const scrolled = body.scrollTop;
    const enlarged = head.querySelector("[data-focus]").getAttribute("aria-pressed");
    article.className = made.className;
    head.replaceChildren(...made.querySelector(".pane-head").childNodes);
    head.querySelector("[data-focus]").setAttribute("aria-pressed", enlarged);
    body.setAttribute("aria-busy", newBody.getAttribute("aria-busy"));
    body.replaceChildren(...newBody.childNodes);
    body.scrollTop = scrolled;
    if (hadFocus) body.focus({preventScroll: true});
    return body.querySelector(":scope > .answer:not(.earlier)");
  };

  const paint = (index) => {
    const side = sides[index];
    const article = document.querySelector(`#answer-${LETTERS[index]} article.pane`);
    if (!article || article.dataset.run !== run) return false; // Gradio's page is not there yet
    if (side.frame !== null || !side.mark || !article.contains(side.mark)) {
      const answer = paintFrame(article, side.frame ?? side.drawn);
      side.drawn = side.frame ?? side.drawn;
      side.frame = null;
      side.mark = document.createComment("");
      if (answer && side.isGrowing) answer.append(parsed(side.settled), side.mark);
      else article.append(side.mark);
      side.added = "";
    }
    if (!side.isGrowing) return true;
    if (side.added) { side.mark.before(parsed(side.added)); side.added = ""; }
    while (side.mark.nextSibling) side.mark.nextSibling.remove();
    side.mark.after(parsed(side.tail));
    return true;
  };

  const paintAll = () => {
    clearTimeout(repaint);
    const done = sides.map((side, index) => !side || !side.isDirty || paint(index));
    done.forEach((isDone, index) => { if (isDone && sides[index]) sides[index].isDirty = false; });
    if (source && !done.every(Boolean)) repaint = setTimeout(paintAll, 50);
  };

  const hear = (message) => {
    if (message.run) run = message.run;
    for (const [index, told] of Object.entries(message.sides || {})) {
      const side = sides[index] ||= {drawn: "", mark: null};
      if (told.frame !== undefined) {
        Object.assign(side, {frame: told.frame, settled: "", added: "", tail: "", isGrowing: false});
      }
      if (told.add !== undefined) {
        side.settled += told.add;
        side.added += told.add;
        side.tail = "";
      }
      if (told.tail !== undefined) side.tail = side.tail.slice(0, told.at) + told.tail;
      side.isGrowing ||= told.tail !== undefined || told.add !== undefined;
      side.isDirty = true;
    }
    paintAll();
    if (message.changes) waiting = Object.assign(waiting, asList(message.changes));
    if (message.end) finish();
    else if (message.changes) apply();
  };

  const finish = async () => {
    const {link} = shown;
    close();
    const marks = document.querySelector("#differences input");
    if (marks && marks.checked && link) {
      waiting = Object.assign(waiting, asList(await post("marked", {link})));
    }
    apply();
  };

  const close = () => {
    if (source) source.close();
    source = null;
    followed = run = "";
    sides = [];
    clearTimeout(repaint);
  };

  const follow = (link) => {
    close();
    followed = link;
    const query = new URLSearchParams(link);
    source = new EventSource(`live/${query.get("battle")}?${query}`);
    source.onmessage = (event) => hear(JSON.parse(event.data));
    source.onerror = () => { // after a lost connection a browser tries again by itself
      if (!source || source.readyState !== EventSource.CLOSED) return;
      close();
      shown.run = "";
    };
  };

  // The server says which battle is shown; the address bar follows, so that a reload finds it.
  const show = (link, shownRun) => {
    shown = {link, run: shownRun};
    takeUp();
    const url = new URL(window.location.href);
    const query = new URLSearchParams(link);
    for (const key of LINK_KEYS) {
      if (query.has(key)) url.searchParams.set(key, query.get(key));
      else url.searchParams.delete(key);
    }
    if (url.href !== window.location.href) {
      // "Back" goes to the battle before; what the page was opened with is corrected in its place.
      const isOther = hasShown && battleOf(url) !== battleOf(window.location);
      window.history[isOther ? "pushState" : "replaceState"](null, "", url);
    }
    const isFirst = !hasShown;
    hasShown = true;
    nowHeard();
    if (unheardNote) unheardNote.remove();
    if (isFirst && waiting.length) apply();
    setTimeout(() => { // link and run come one by one
      if (!shown.run) { if (source) close(); }
      else if (followed !== shown.link || (run && run !== shown.run)) follow(shown.link);
    });
  };

  const battleOf = (place) => new URLSearchParams(place.search).get("battle") || "";
  window.addEventListener("popstate", () => {
    const battle = new URLSearchParams(shown.link).get("battle") || "";
    if (battleOf(window.location) !== battle) window.location.reload();
  });

  // Whether votes will arrive from where the page was opened; if not, which option is missing.
  const checkPlace = async () => {
    const path = window.location.pathname.replace(/\/$/, "");
    let option = path === meta("arena-root-path") ? "" : `--root-path ${path}`;
    if (!option) {
      const reply = await fetch("live/hello", {method: "POST"}).catch(() => null);
      if (reply && reply.status === 403) option = `--allowed-origin ${window.location.origin}`;
    }
    if (!option) return;
    while (!words().set_option) await sleep(200);
    note(words().set_option.replace("{option}", option));
  };

  window.arena = {act, changes, show, tell, words, limit, checkPlace, sent: () => {}};

  setTimeout(tellUnheard, PATIENCE_MS);

  // A reload takes the stream up at once, before the page stands. The server has known since the
  // page was asked for that somebody comes, and lets the answers go on until then.
  const query = new URLSearchParams(window.location.search);
  const given = new URLSearchParams([...query].filter(([key]) => LINK_KEYS.includes(key)));
  if (given.get("battle")) follow(given.toString());
})();
