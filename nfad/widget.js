// The face of the desk: a list on the left, a card on the right, answers by keys.
//
// Jupyter (through anywidget) and the page of `nfad triage` load this one file. All that somebody else
// chose, such as a host or a file name, becomes text by `textContent`; nothing here makes HTML of a string.

const ROW = 52; // height of a row of the list, pixels
const MARGIN = 6; // rows drawn above and below what is seen
const SHOWN = 8; // features on a card; the others unfold
const ANSWERS = { a: "attack", b: "benign", u: "unsure", "-": "open", m: "mixed" };
const HELP = [
  ["j k", "next, previous"],
  ["a", "attack"],
  ["b", "benign"],
  ["u", "unsure"],
  ["z", "take back"],
  ["o", "alerts of the incident"],
  ["Esc", "back"],
  ["/", "search"],
  ["n", "note"],
];

// ---------------------------------------------------------------- small tools

/** An element with attributes, listeners (`onclick`) and children; texts become text. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

const number = (value) => value.toLocaleString("en-US");
const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ");

/** Dark or light, whatever the page around says: JupyterLab, VS Code and browsers say it in different words. */
export function isDark(element) {
  for (let at = element; at; at = at.parentElement) {
    const [red, green, blue, alpha = 1] = (getComputedStyle(at).backgroundColor.match(/[\d.]+/g) || []).map(Number);
    if (red !== undefined && alpha > 0.5) return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

// ---------------------------------------------------------------- asking the desk

/** Questions over the channel of a Jupyter widget: a promise of the answer for each. */
export function askKernel(model, patience = 20000) {
  const waiting = new Map();
  const own = crypto.getRandomValues(new Uint32Array(2)).join("-"); // two views of a widget share its channel
  let count = 0;
  const hear = (reply) => {
    if (!waiting.has(reply.id)) return;
    waiting.get(reply.id)(reply.answer);
    waiting.delete(reply.id);
  };
  model.on("msg:custom", hear);
  const ask = (question) =>
    new Promise((resolve, reject) => {
      const id = `${own}-${++count}`;
      const late = () => reject(new Error("No kernel answers: run this cell again."));
      const timer = question.ask === "learn" ? 0 : setTimeout(late, patience);
      waiting.set(id, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      model.send({ id, question });
    });
  return { ask, close: () => model.off("msg:custom", hear) };
}

/** The same over HTTP, to the server that sent this page. */
export function askServer() {
  const ask = async (question) => {
    const head = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question) };
    const reply = await fetch("ask", head).catch(() => {
      throw new Error("The server does not answer: is nfad triage still running?");
    });
    if (!reply.ok) throw new Error(`The server refuses: ${reply.status}`);
    return reply.json();
  };
  return { ask, close: () => {} };
}

// ---------------------------------------------------------------- what is to be seen

/** The list of the desk: which alerts or incidents pass the filters, and what is said of them. */
export class List {
  constructor(told) {
    this.told = told;
    this.alerts = told.alerts;
    this.n = told.alerts.rank.length;
    this.gone = "";
    this.marks = []; // answers on their way
    this.members = new Map(); // incident -> positions of its alerts
    this.alerts.incident.forEach((incident, i) => {
      if (!this.members.has(incident)) this.members.set(incident, []);
      this.members.get(incident).push(i);
    });
    this.place = new Map(this.alerts.rank.map((rank, i) => [rank, i]));
    const named = ["reason", "source", "target", "port", "file"].filter((name) => this.alerts[name]);
    this.searched = Array.from({ length: this.n }, (_, i) =>
      [...named.map((name) => this.word(name, i)), `#${this.alerts.rank[i]}`].join(" ").toLowerCase(),
    );
    this.hear(told.state);
  }

  /** A text of an alert, by its number among the words. */
  word(name, i) {
    return this.alerts[name] ? this.told.words[this.alerts[name][i]] : "";
  }

  /** What is said now. */
  hear(state) {
    this.heard = state.signs;
    this.overlay();
    this.steps = state.steps;
    this.replaced = state.replaced;
  }

  /** What is being said of some alerts, until the desk has heard it. */
  mark(positions, sign) {
    const mark = { positions, sign };
    this.marks.push(mark);
    this.overlay();
    return mark;
  }

  settle(mark) {
    this.marks = this.marks.filter((other) => other !== mark);
    this.overlay();
  }

  overlay() {
    const signs = [...this.heard];
    for (const { positions, sign } of this.marks) for (const i of positions) signs[i] = sign;
    this.signs = signs.join("");
  }

  /** All texts of a column, the most frequent first. */
  all(...names) {
    const counts = new Map();
    for (const name of names)
      for (const word of this.alerts[name] || []) if (word) counts.set(word, (counts.get(word) || 0) + 1);
    return [...counts].sort((one, other) => other[1] - one[1]).map(([word]) => this.told.words[word]);
  }

  /** Whether an alert passes the filters. */
  passes(i, wanted) {
    const { text, host, kind, answer, from, to, incident } = wanted,
      time = this.alerts.time[i];
    if (incident && this.alerts.incident[i] !== incident) return false;
    if (
      text &&
      !text
        .toLowerCase()
        .split(/\s+/)
        .every((part) => this.searched[i].includes(part))
    )
      return false;
    if (host && !["source", "target"].some((end) => this.word(end, i).includes(host))) return false;
    if (kind && this.word("kind", i) !== kind) return false;
    if (answer === "gone" ? this.gone[i] !== "1" : answer && this.signs[i] !== answer) return false;
    return !(from && !(time >= from)) && !(to && !(time <= to));
  }

  /** What is listed: positions of alerts, or incidents that have such alerts. */
  listed(wanted, byIncident) {
    const found = [];
    for (let i = 0; i < this.n; i++) if (this.passes(i, wanted)) found.push(i);
    if (!byIncident) return found;
    const numbers = new Set(found.map((i) => this.alerts.incident[i]));
    return this.told.incidents.filter((incident) => numbers.has(incident.number));
  }

  /** One sign for an incident: that of all its alerts, `m` if they differ. */
  sign(incident) {
    const signs = new Set(this.members.get(incident).map((i) => this.signs[i]));
    return signs.size === 1 ? [...signs][0] : "m";
  }
}

/** A list that draws only the rows that are seen, so that ten thousand scroll as ten do. */
export class Rows {
  constructor(label, draw, choose) {
    this.draw = draw;
    this.choose = choose;
    this.items = [];
    this.at = 0;
    this.inner = make("div", { role: "presentation", class: "rows" });
    this.outer = make(
      "div",
      { role: "listbox", tabindex: "0", "aria-label": label, class: "list", onscroll: () => this.show() },
      this.inner,
    );
    this.id = `nfad-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  }

  /** Other items; the chosen one stays chosen where it is still listed. */
  set(items, same = (one, other) => one === other) {
    const chosen = this.items[this.at];
    const found = chosen === undefined ? -1 : items.findIndex((item) => same(item, chosen));
    this.items = items;
    this.at = Math.max(0, found >= 0 ? found : Math.min(this.at, items.length - 1));
    this.inner.style.height = `${items.length * ROW}px`;
    this.move(0);
  }

  /** Chooses another item, and scrolls to it. */
  move(by, to = this.at + by) {
    this.at = Math.max(0, Math.min(this.items.length - 1, to));
    const top = this.at * ROW,
      seen = this.outer.clientHeight || 10 * ROW;
    if (top < this.outer.scrollTop) this.outer.scrollTop = top;
    if (top + ROW > this.outer.scrollTop + seen) this.outer.scrollTop = top + ROW - seen;
    this.show();
    this.choose(this.items[this.at]);
  }

  /** Draws the rows that are seen. */
  show() {
    const seen = this.outer.clientHeight || 10 * ROW;
    const first = Math.max(0, Math.floor(this.outer.scrollTop / ROW) - MARGIN);
    const last = Math.min(this.items.length, Math.ceil((this.outer.scrollTop + seen) / ROW) + MARGIN);
    const rows = [];
    for (let i = first; i < last; i++) {
      const row = make(
        "div",
        {
          role: "option",
          id: `${this.id}-${i}`,
          class: "row",
          "aria-selected": String(i === this.at),
          "aria-setsize": this.items.length,
          "aria-posinset": i + 1,
          onclick: () => this.move(0, i),
        },
        ...this.draw(this.items[i]),
      );
      row.style.top = `${i * ROW}px`;
      rows.push(row);
    }
    this.inner.replaceChildren(...rows);
    if (this.items.length) this.outer.setAttribute("aria-activedescendant", `${this.id}-${this.at}`);
    else this.outer.removeAttribute("aria-activedescendant");
  }
}

// ---------------------------------------------------------------- the card

/** A bar to the right (raised the score) or to the left (lowered it). */
function bar(credit, largest) {
  const fill = make("i", { class: credit < 0 ? "down" : "up" });
  fill.style.width = `${(50 * Math.abs(credit)) / (largest || 1)}%`;
  return make(
    "td",
    { class: "credit" },
    make("span", { class: "bar", "aria-hidden": "true" }, fill),
    make("span", { class: "n" }, `${credit >= 0 ? "+" : "\u2212"}${Math.abs(credit).toFixed(1)}`),
  );
}

/** Values beside what is typical. */
function valuesTable(features) {
  const credited = features.some((feature) => feature.credit !== null);
  const ranged = features.some((feature) => feature.typical);
  const largest = Math.max(...features.map((feature) => Math.abs(feature.credit || 0)));
  const heads = ["feature", "value", ranged && "typical, like this one", credited && "raised the score (nats)"].filter(
    Boolean,
  );
  const rows = features.map((feature) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, feature.name),
      make(
        "td",
        { class: feature.outside ? "outside" : "" },
        feature.value,
        feature.outside ? make("small", {}, " outside") : "",
      ),
      ranged ? make("td", {}, feature.typical) : "",
      credited ? bar(feature.credit || 0, largest) : "",
    ),
  );
  const head = make("thead", {}, make("tr", {}, ...heads.map((name) => make("th", { scope: "col" }, name))));
  const table = (some) => make("table", {}, head.cloneNode(true), make("tbody", {}, ...some));
  const rest = rows.splice(SHOWN);
  return [
    table(rows),
    rest.length ? make("details", {}, make("summary", {}, `${rest.length} more features`), table(rest)) : "",
  ];
}

/** Reasons, where and when, values. */
function drawCard(told, title) {
  const [first, ...others] = told.reasons;
  const facts = [["score", told.score.toFixed(1)], ["p-value", told.p.toPrecision(2)], ...told.facts];
  const marks = [
    told.above ? "above the threshold" : "below the threshold",
    told.passes ? "passes the false discovery rate" : "does not pass the false discovery rate",
  ];
  return [
    make("h2", {}, title),
    make("p", { class: "marks" }, ...marks.map((text) => make("span", {}, text))),
    first ? make("p", { class: "first" }, first) : make("p", { class: "first" }, "No reason was given; values follow."),
    others.length ? make("ol", { class: "others", start: "2" }, ...others.map((text) => make("li", {}, text))) : "",
    told.said ? make("p", { class: "said" }, told.note ? `${told.said}: ${told.note}` : told.said) : "",
    make("dl", {}, ...facts.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)))),
    told.of > 1 ? make("p", { class: "quiet" }, `Values of its representative, rank ${told.rank}.`) : "",
    ...valuesTable(told.features),
  ];
}

// ---------------------------------------------------------------- the desk

/** Everything that is on the desk, in one element. */
class Desk {
  constructor(element, line) {
    this.line = line;
    this.wanted = {};
    this.byIncident = true;
    this.asked = 0; // the number of the last card that was asked for: late ones are dropped
    this.root = make("div", {
      class: "nfad-triage",
      "data-lm-suppress-shortcuts": "true",
      onkeydown: (event) => this.key(event),
    });
    this.status = make("p", { role: "status", class: "status" });
    this.root.append(make("p", { class: "status" }, "Opening the list ..."));
    element.append(this.root);
    this.paint = () => this.root.classList.toggle("dark", isDark(element));
    this.paint();
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.paint);
    this.watcher = new MutationObserver(this.paint);
    this.watcher.observe(document.body, { attributes: true });
    this.wake = () => {
      if (document.visibilityState === "visible" && this.list) this.tell({ ask: "news" });
    };
    document.addEventListener("visibilitychange", this.wake);
    window.addEventListener("focus", this.wake);
    this.open();
  }

  close() {
    this.line.close();
    this.watcher.disconnect();
    this.scheme.removeEventListener("change", this.paint);
    document.removeEventListener("visibilitychange", this.wake);
    window.removeEventListener("focus", this.wake);
  }

  /** Asks the desk; what goes wrong is said in the status line. */
  async ask(question) {
    try {
      const answer = await this.line.ask(question);
      if (!answer.error) return answer;
      this.say(answer.error, true);
    } catch (error) {
      this.say(error.message, true);
    }
    return null;
  }

  say(text, wrong = false) {
    this.status.textContent = text;
    this.status.classList.toggle("wrong", wrong);
  }

  async open() {
    this.root.replaceChildren(this.status);
    const told = await this.ask({ ask: "overview" });
    if (!told) return;
    this.list = new List(told);
    this.byIncident = told.incidents.length < this.list.n;
    this.rows = new Rows(
      "incidents or alerts",
      (item) => this.row(item),
      (item) => this.card(item),
    );
    this.cardPlace = make("div", { class: "card", role: "region", "aria-label": "what is strange", tabindex: "0" });
    this.said = make("span", { class: "counts" });
    this.notice = make("p", { class: "notice", hidden: true });
    this.note = make("textarea", { rows: "1", maxlength: "10000", placeholder: "note, why (n)", "aria-label": "note" });
    this.account = make("div", { class: "account", hidden: true });
    const right = make("div", { class: "right" }, this.buttons(), this.account, this.cardPlace);
    const desk = make("div", { class: "desk" }, make("div", { class: "left" }, this.rows.outer), right);
    this.root.replaceChildren(this.head(told), this.filters(), this.notice, desk, this.foot());
    this.say("");
    this.refresh();
    this.resize = new ResizeObserver(() => this.rows.show());
    this.resize.observe(this.rows.outer);
  }

  // -------------------------------------------------------------- parts

  head(told) {
    const words = `${number(told.incidents.length)} incidents, ${number(this.list.n)} alerts`;
    const hidden = told.hidden ? `, ${number(told.hidden)} hidden by rules` : "";
    const learn = make(
      "button",
      {
        type: "button",
        class: "learn",
        disabled: !told.learns,
        onclick: () => this.learn(),
        title: told.learns ? "makes a model that knows the answers" : "give the model that scored",
      },
      "Learn",
    );
    return make(
      "header",
      {},
      make("h1", {}, told.title || "Alerts"),
      make("span", { class: "quiet" }, words + hidden),
      this.said,
      learn,
    );
  }

  filters() {
    const set = (name, value) => {
      this.wanted[name] = value;
      this.refresh();
    };
    const choice = (label, name, options) =>
      options.length < 2
        ? ""
        : make(
            "label",
            {},
            make("span", {}, label),
            make(
              "select",
              { "aria-label": label, onchange: (event) => set(name, event.target.value) },
              make("option", { value: "" }, "any"),
              ...options.map(([value, text]) => make("option", { value }, text)),
            ),
          );
    const moment = (label, name) =>
      make(
        "label",
        {},
        make("span", {}, label),
        make("input", {
          type: "datetime-local",
          "aria-label": label,
          step: "1",
          onchange: (event) => set(name, Date.parse(`${event.target.value}Z`) / 1000 || 0),
        }),
      );
    const hosts = this.list.all("source", "target").slice(0, 500);
    const listId = `${this.rows.id}-hosts`;
    const host = make(
      "label",
      {},
      make("span", {}, "host"),
      make("input", {
        type: "text",
        list: listId,
        spellcheck: "false",
        oninput: (event) => set("host", event.target.value.trim()),
      }),
      make("datalist", { id: listId }, ...hosts.map((name) => make("option", { value: name }))),
    );
    this.search = make("input", {
      type: "search",
      placeholder: "/",
      spellcheck: "false",
      oninput: (event) => set("text", event.target.value.trim()),
    });
    this.answers = Object.entries(ANSWERS).filter(([sign]) => sign !== "m");
    const timed = this.list.alerts.time.some((time) => time !== null);
    this.toggle = make("button", { type: "button", class: "toggle", onclick: () => this.switch(!this.byIncident) });
    return make(
      "div",
      { class: "filters", role: "search" },
      this.toggle,
      make("label", {}, make("span", {}, "search"), this.search),
      hosts.length ? host : "",
      choice(
        "reason",
        "kind",
        this.list.all("kind").map((kind) => [kind, kind]),
      ),
      choice("answer", "answer", [...this.answers, ["gone", "gone after learning"]]),
      ...(timed ? [moment("from", "from"), moment("to", "to")] : []),
    );
  }

  buttons() {
    const answer = (sign) =>
      make(
        "button",
        { type: "button", class: `answer ${ANSWERS[sign]}`, onclick: () => this.give(sign) },
        ANSWERS[sign],
        make("kbd", { "aria-hidden": "true" }, sign),
      );
    this.back = make(
      "button",
      { type: "button", class: "answer", onclick: () => this.undo() },
      "take back",
      make("kbd", { "aria-hidden": "true" }, "z"),
    );
    this.about = make("span", { class: "about" });
    return make(
      "div",
      { class: "buttons", role: "group", "aria-label": "your answer" },
      answer("a"),
      answer("b"),
      answer("u"),
      this.back,
      this.about,
      this.note,
    );
  }

  foot() {
    const keys = HELP.map(([key, text]) => make("span", {}, make("kbd", {}, key), ` ${text}`));
    return make("footer", {}, this.status, make("p", { class: "keys" }, ...keys));
  }

  // -------------------------------------------------------------- drawing

  row(item) {
    const list = this.list,
      i = this.byIncident ? list.place.get(item.rank) : item;
    const sign = this.byIncident ? list.sign(item.number) : list.signs[item];
    const ends = ["source", "target"]
      .map((end) => list.word(end, i))
      .filter(Boolean)
      .join(" \u2192 ");
    const time = list.alerts.time[i] === null ? "" : clock(list.alerts.time[i]);
    const place = ends || `${list.word("file", i)} row ${number(list.alerts.row[i])}`;
    const title = this.byIncident ? item.title : [place, time].filter(Boolean).join(", ");
    const gone = this.byIncident
      ? list.members.get(item.number).every((k) => list.gone[k] === "1")
      : list.gone[i] === "1";
    const marks = [
      gone ? make("span", { class: "chip gone" }, "gone") : "",
      sign === "-" ? "" : make("span", { class: `chip ${ANSWERS[sign]}` }, ANSWERS[sign]),
    ];
    return [
      make("span", { class: "number" }, String(this.byIncident ? item.number : list.alerts.rank[i])),
      make("span", { class: "what" }, make("b", {}, title), make("span", { class: "why" }, list.word("reason", i))),
      make(
        "span",
        { class: "side" },
        make("span", { class: "score" }, (list.alerts.score[i] ?? 0).toFixed(1)),
        ...marks,
      ),
    ];
  }

  /** What the chosen item is called in a question. */
  naming(item) {
    return this.byIncident ? { incident: item.number } : { rank: this.list.alerts.rank[item] };
  }

  async card(item) {
    const asked = ++this.asked;
    this.about.textContent = "";
    if (item === undefined)
      return this.cardPlace.replaceChildren(
        make("p", { class: "quiet" }, this.list.n ? "Nothing passes these filters." : "This list has no alerts."),
      );
    const n = this.byIncident ? this.list.members.get(item.number).length : 1;
    const title = this.byIncident ? `Incident ${item.number}: ${item.title}` : `Alert ${this.list.alerts.rank[item]}`;
    this.about.textContent = n > 1 ? `all ${number(n)} records of incident ${item.number}` : "this record";
    const told = await this.ask({ ask: "card", ...this.naming(item) });
    if (!told || asked !== this.asked) return;
    const more =
      n > 1
        ? make(
            "button",
            { type: "button", class: "more", onclick: () => this.within(item.number) },
            `show its ${number(n)} alerts (o)`,
          )
        : "";
    this.cardPlace.replaceChildren(...drawCard(told, title), more);
    this.cardPlace.scrollTop = 0;
  }

  refresh() {
    const same = this.byIncident ? (one, other) => one.number === other.number : undefined;
    this.rows.set(this.list.listed(this.wanted, this.byIncident), same);
    const within = this.wanted.incident ? `incident ${this.wanted.incident} \u2715` : "";
    this.toggle.textContent = within || (this.byIncident ? "incidents" : "alerts");
    this.toggle.setAttribute(
      "aria-label",
      within ? `leave incident ${this.wanted.incident}` : `showing ${this.byIncident ? "incidents" : "alerts"}; switch`,
    );
    this.count();
  }

  count() {
    const { list } = this,
      done = [...list.heard].filter((sign) => sign !== "-").length;
    this.said.textContent = `${number(done)} of ${number(list.n)} answered`;
    this.back.disabled = !list.steps;
    this.notice.hidden = !list.replaced;
    this.notice.textContent = list.replaced
      ? "The list on disk is another now: open it again to see that one. Answers given here stay right."
      : "";
  }

  switch(byIncident) {
    delete this.wanted.incident;
    this.byIncident = byIncident;
    this.rows.items = [];
    this.rows.at = 0;
    this.refresh();
    this.rows.outer.focus();
  }

  within(incident) {
    this.switch(false);
    this.wanted.incident = incident;
    this.refresh();
  }

  // -------------------------------------------------------------- answering

  /** Asks something that changes what is said; false if it was not done. */
  async tell(question, mark = null) {
    const state = await this.ask(question);
    this.list.settle(mark);
    if (!state) return false;
    this.list.hear(state);
    if (state.text && question.ask !== "learn") this.say(state.text);
    this.rows.show();
    this.count();
    return state;
  }

  /** One question after the other: whoever presses keys fast is answered in their order. */
  inTurn(action) {
    this.turn = (this.turn || Promise.resolve()).then(action);
  }

  /** Gives an answer to what is chosen, and goes on; the file is written meanwhile. */
  give(sign) {
    const item = this.rows.items[this.rows.at],
      note = this.note.value.trim();
    if (item === undefined) return;
    const question = { ask: "say", verdict: ANSWERS[sign], note, ...this.naming(item) };
    const mark = this.list.mark(this.byIncident ? this.list.members.get(item.number) : [item], sign);
    this.note.value = "";
    if (this.wanted.answer) this.refresh();
    else this.rows.move(1);
    this.inTurn(async () => {
      if (await this.tell(question, mark)) return;
      this.note.value = this.note.value || note; // it failed: the status says why
      this.refresh();
    });
  }

  undo() {
    this.inTurn(async () => {
      if (await this.tell({ ask: "undo" })) this.refresh();
    });
  }

  async learn() {
    this.say("Learning; this takes a minute ...");
    this.account.hidden = true;
    const told = await this.tell({ ask: "learn" });
    if (!told) return;
    this.list.gone = told.gone;
    const n = [...told.gone].filter((one) => one === "1").length;
    this.say(`${number(n)} of ${number(this.list.n)} listed alerts would be none for the new model`);
    this.account.hidden = false;
    this.account.replaceChildren(
      make("h2", {}, "What learning changed"),
      ...told.text.split("\n").map((line) => make("p", {}, line)),
    );
    this.refresh();
  }

  // -------------------------------------------------------------- keys

  key(event) {
    if (!this.rows || event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation(); // notebooks have plain keys of their own
    const typing = event.target.closest("input, textarea, select");
    if (typing && event.key !== "Escape") return;
    const page = Math.max(1, Math.floor(this.rows.outer.clientHeight / ROW) - 1),
      inCard = event.target === this.cardPlace;
    const actions = {
      j: () => this.rows.move(1),
      k: () => this.rows.move(-1),
      a: () => this.give("a"),
      b: () => this.give("b"),
      u: () => this.give("u"),
      z: () => this.undo(),
      "/": () => this.search.focus(),
      n: () => this.note.focus(),
      Escape: () => this.leave(typing),
      o: () => {
        if (this.byIncident && this.rows.items.length) this.within(this.rows.items[this.rows.at].number);
      },
      ...(inCard
        ? {}
        : {
            ArrowDown: () => this.rows.move(1),
            ArrowUp: () => this.rows.move(-1),
            PageDown: () => this.rows.move(page),
            PageUp: () => this.rows.move(-page),
            Home: () => this.rows.move(0, 0),
            End: () => this.rows.move(0, this.rows.items.length - 1),
          }),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  leave(typing) {
    if (!typing && this.wanted.incident) return this.switch(true);
    this.rows.outer.focus();
  }
}

/** What anywidget calls. */
function render({ model, el }) {
  const desk = new Desk(el, askKernel(model));
  return () => desk.close();
}

/** What the page of `nfad triage` calls. */
export function serve(element) {
  return new Desk(element, askServer());
}

export default { render };
