"use strict";
/* The report: numbers first, then every episode they come from. */

const bodies = new Packed("body");
const texts = new Packed("text");
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#a08000"];
let report, table_, list, chosen = -1;

/** Columns of the episodes; a column in which values repeat names each once. */
class Episodes {
  constructor(columns) {
    this.columns = columns;
    const first = columns.id;
    this.count = (Array.isArray(first) ? first : first.at).length;
    this.low = null;
  }
  get(name, i) {
    const column = this.columns[name];
    return Array.isArray(column) ? column[i] : column.of[column.at[i]];
  }
  different(name) {
    const column = this.columns[name];
    return Array.isArray(column) ? [...new Set(column)] : column.of;
  }
  /** What a search looks at, in small letters; made once. */
  searched(i) {
    if (!this.low) {
      this.low = Array.from({ length: this.count }, (_, n) =>
        ["goal", "type", "id", "actor", "condition"].map((name) => this.get(name, n)).join("\n").toLowerCase());
    }
    return this.low[i];
  }
}

function chart(caption, options) {
  const plot = Plot.plot({ style: { background: "transparent", color: "currentColor", fontSize: "12px" }, ...options });
  // Names of the library's own are on parts that cannot have any; the whole chart is one picture.
  for (const part of plot.querySelectorAll("[aria-label], [aria-description]")) {
    part.removeAttribute("aria-label");
    part.removeAttribute("aria-description");
  }
  const drawing = plot.matches("svg") ? plot : [...plot.children].findLast((child) => child.matches("svg"));
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", caption);
  return make("figure", {}, plot, make("figcaption", {}, caption));
}

const wrap = (text, most = 26) => text.length > most ? `…${text.slice(1 - most)}` : text;

function overview(section) {
  const whole = report.rows.filter((row) => row.whole);
  const names = [...new Set(whole.map((row) => row.condition))];
  const partial = whole.some((row) => Math.abs(row.score - row.success) > 1e-9 || row.best > row.score);
  const title = (row) => `${row.condition}, ${row.split}: ${percent(row.success)} % of ${row.n} (95 % ${percent(row.low)} to ${percent(row.high)})`;
  const bars = (rows, y, label) => [
    Plot.ruleX([0, 1], { stroke: "var(--line)" }),
    Plot.ruleY(rows, { x1: "low", x2: "high", y, stroke: "var(--accent)", strokeWidth: 2 }),
    Plot.dot(rows, { x: "success", y, r: 5, fill: "var(--accent)", title: label }),
  ];
  for (const run of report.runs) if (run.unfinished) section.append(make("p", { class: "warn unfinished" }, `${run.name} is not finished: ${run.unfinished}.`));
  const charts = make("div", { class: "charts" });
  charts.append(chart("Success per condition, with its 95 % interval", {
    marginLeft: 190, height: 60 + 26 * whole.length, x: { domain: [0, 1], tickFormat: (v) => `${100 * v}`, label: "success %" },
    y: { label: null, domain: whole.map((row) => `${row.condition} · ${row.split}`), tickFormat: (v) => wrap(v) },
    marks: bars(whole, (row) => `${row.condition} · ${row.split}`, title),
  }));
  const types = report.rows.filter((row) => !row.whole);
  if (types.length) {
    const shown = names.slice(0, 6);
    const some = types.filter((row) => shown.includes(row.condition));
    const kinds = [...new Set(some.map((row) => row.type))];
    charts.append(chart(`Success per task type${names.length > 6 ? " (the first six conditions)" : ""}`, {
      marginLeft: 190, height: 60 + kinds.length * (14 + 9 * shown.length), x: { domain: [0, 1], tickFormat: (v) => `${100 * v}`, label: "success %" },
      y: { axis: null, domain: shown }, fy: { label: null, domain: kinds, tickFormat: (v) => wrap(v) }, marginRight: 20,
      color: { domain: shown, range: COLOURS, legend: shown.length > 1 }, symbol: { domain: shown },
      marks: [
        Plot.axisFy({ anchor: "left", label: null, tickFormat: (v) => wrap(v), textAnchor: "end" }),
        Plot.ruleX([0, 1], { stroke: "var(--line)" }),
        Plot.ruleY(some, { x1: "low", x2: "high", y: "condition", fy: "type", stroke: "condition" }),
        Plot.dot(some, { x: "success", y: "condition", fy: "type", fill: "condition", symbol: "condition", r: 4, title: (row) => `${row.type}: ${title(row)}` }),
      ],
    }));
  }
  charts.append(overTime(names));
  section.append(charts);
  section.append(make("h2", {}, "Conditions"), table("Every condition and split; intervals are Wilson's; environment errors count nowhere but in cost", [
    ["condition", (r) => r.condition, true], ["split", (r) => r.split, true], ["n", (r) => r.n], ["success %", (r) => percent(r.success)],
    ["95 %", (r) => `${percent(r.low)}–${percent(r.high)}`],
    ...(partial ? [["score %", (r) => percent(r.score)], ["best %", (r) => percent(r.best)]] : []),
    ["steps", (r) => number(r.steps)], ["refused %", (r) => percent(r.invalid)], ["shown", (r) => number(r.shown)],
    ["tokens", (r) => number(r.tokens, 0)], ["cost", (r) => number(r.cost, 4)], ["errors", (r) => r.errors],
    ["", (r) => make("button", { type: "button", onclick: () => showEpisodes({ condition: r.condition, split: r.split }) }, "episodes")],
  ], whole));
  if (types.length) {
    const kinds = make("details", {}, make("summary", {}, "By task type"));
    kinds.append(table("Success by task type", [
      ["condition", (r) => r.condition, true], ["split", (r) => r.split, true], ["type", (r) => r.type, true], ["n", (r) => r.n],
      ["success %", (r) => percent(r.success)], ["95 %", (r) => `${percent(r.low)}–${percent(r.high)}`], ["refused %", (r) => percent(r.invalid)],
    ], types));
    section.append(kinds);
  }
  if (report.tests.length) {
    section.append(make("h2", {}, "Compared on the same tasks"), table("Paired differences in success; p after Holm's correction over this table", [
      ["a", (r) => r.a, true], ["b", (r) => r.b, true], ["n", (r) => r.n],
      ["a − b, points", (r) => (r.difference > 0 ? "+" : "") + percent(r.difference)],
      ["95 %", (r) => `${percent(r.low)} to ${percent(r.high)}`], ["p", (r) => r.p.toFixed(4)],
    ], report.tests));
  }
  for (const run of report.runs) {
    if (run.audit) {
      const leaks = run.audit.leaks.length;
      section.append(make("h2", {}, `Leakage audit: ${run.name}`), make("p", { class: leaks ? "bad" : "good" },
        `${run.audit.shown} past episodes shown, ${run.audit.held_back} held back, ${leaks ? `${leaks} LEAKED: ${run.audit.leaks.join(", ")}` : "none leaked"}`));
    }
    for (const note of run.notes) section.append(make("p", { class: "warn" }, note));
  }
}

/** The share solved of the latest episodes, in the order in which they began. */
function overTime(names) {
  const points = [];
  for (const name of names.slice(0, 7)) {
    const mine = [];
    for (let i = 0; i < table_.count; i++) if (table_.get("condition", i) === name && !table_.get("reason", i).startsWith("environment")) mine.push([table_.get("started", i), table_.get("success", i)]);
    mine.sort((a, b) => a[0] - b[0]);
    const window = Math.max(10, Math.round(mine.length / 20));
    const step = Math.max(1, Math.floor(mine.length / 200));
    let won = 0;
    mine.forEach(([, success], n) => {
      won += success;
      if (n >= window) won -= mine[n - window][1];
      const of = Math.min(n + 1, window);
      if (n + 1 >= Math.min(10, mine.length) && (n % step === 0 || n === mine.length - 1)) points.push({ condition: name, episode: n + 1, success: won / of });
    });
  }
  return chart("Success over time: the share solved of the latest episodes (a twentieth of them, ten at least)", {
    marginLeft: 50, height: 280, y: { domain: [0, 1], tickFormat: (v) => `${100 * v}`, label: "success %" }, x: { label: "episode", nice: true },
    color: { domain: names.slice(0, 7), range: COLOURS, legend: names.length > 1 },
    marks: [Plot.ruleY([0], { stroke: "var(--line)" }), Plot.line(points, { x: "episode", y: "success", stroke: "condition", strokeWidth: 2 })],
  });
}

function learning(section) {
  for (const run of report.runs) {
    if (run.rounds.length) {
      section.append(make("h2", {}, `Rounds: ${run.name}`));
      section.append(chart("Success by round: while exploring, and on validation tasks", {
        marginLeft: 50, height: 260, x: { label: "round", ticks: run.rounds.map((r) => r.round), tickFormat: "d" }, y: { domain: [0, 1], label: "success %", tickFormat: (v) => `${100 * v}` },
        color: { domain: ["exploring", "validation"], range: COLOURS, legend: true },
        marks: ["success", "validation"].flatMap((key, i) => {
          const rows = run.rounds.filter((r) => r[key] !== null).map((r) => ({ round: r.round, value: r[key], what: ["exploring", "validation"][i] }));
          return [Plot.line(rows, { x: "round", y: "value", stroke: "what" }), Plot.dot(rows, { x: "round", y: "value", fill: "what", symbol: i ? "square" : "circle", title: (r) => `round ${r.round}, ${r.what}: ${percent(r.value)} %` })];
        }),
      }));
      section.append(table("What each round came to", [
        ["round", (r) => r.round], ["episodes", (r) => r.episodes], ["success %", (r) => percent(r.success)], ["memory", (r) => r.memory],
        ["candidate", (r) => r.candidate || "–", true], ["gate, points", (r) => r.gate_difference === undefined ? "–" : percent(r.gate_difference)],
        ["95 %", (r) => r.gate_low === undefined ? "–" : `${percent(r.gate_low)} to ${percent(r.gate_high)}`], ["tasks", (r) => r.gate_n ?? "–"],
        ["adopted", (r) => r.adopted ? "yes" : "no"], ["in force", (r) => r.adapter || "bare model", true],
      ], run.rounds));
    }
    if (run.adapters.length) {
      section.append(make("h2", {}, `Adapters: ${run.name}`), table("What they were trained on", [
        ["version", (m) => m.version, true], ["examples", (m) => m.examples], ["in parts", (m) => m.cut ?? 0], ["too long", (m) => m.too_long ?? 0],
        ["with memory", (m) => m.contexts?.retrieved ?? "–"], ["without", (m) => m.contexts?.empty ?? "–"], ["beside the point", (m) => m.contexts?.irrelevant ?? "–"],
        ["tokens learnt", (m) => number(m.supervised_tokens, 0)], ["loss, first", (m) => m.loss_first], ["last", (m) => m.loss_last], ["seconds", (m) => number(m.seconds, 0)],
      ], run.adapters));
    }
  }
}

function settings(section) {
  for (const run of report.runs) {
    section.append(make("h2", {}, `${run.name} (${run.kind})`));
    if (run.started) section.append(make("p", { class: "quiet" }, `begun ${new Date(1000 * run.started).toISOString().slice(0, 16).replace("T", " ")} UTC`));
    if (run.command.length) section.append(make("p", {}, make("code", {}, run.command.map((part, i) => i ? part : "relive").join(" "))));
    for (const [name, value] of [["Settings", run.settings], ["Where the time went, seconds", run.clock ?? run.seconds], ["Versions", run.versions]]) {
      if (value && Object.keys(value).length) section.append(make("details", { open: name === "Settings" }, make("summary", {}, name), facts(value)));
    }
  }
  section.append(make("h2", {}, "This page"), facts(report.versions));
}

const filters = {};

function episodes(section) {
  const bar = make("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() });
  filters.text = make("input", { type: "search", id: "search", placeholder: "goal, type, id, who", oninput: () => filter() });
  bar.append(make("label", {}, "Search", filters.text));
  for (const [name, values] of [
    ["condition", table_.different("condition")], ["type", table_.different("type")], ["split", table_.different("split")],
    ["outcome", ["success", "failure", ...table_.different("reason").filter((r) => r.includes("error"))]],
  ]) {
    filters[name] = make("select", { id: `filter-${name}`, onchange: () => filter() }, make("option", { value: "" }, "all"),
      [...values].sort().map((value) => make("option", { value }, value || "(none)")));
    if (values.length > 1) bar.append(make("label", {}, name, filters[name]));
  }
  filters.order = make("select", { id: "filter-order", onchange: () => filter() },
    [["", "as played"], ["steps", "longest first"], ["invalid", "most refused first"], ["tokens", "most tokens first"], ["copied", "most copied first"]].map(([value, text]) => make("option", { value }, text)));
  bar.append(make("label", {}, "order", filters.order));
  bar.append(make("button", { type: "button", id: "deep", onclick: () => deepSearch() }, "search transcripts"));
  filters.count = make("p", { class: "quiet", role: "status", id: "count" });
  list = new LongList("Episodes", 56, (i) => [
    make("b", {}, `${table_.get("success", i) ? "✓" : table_.get("reason", i).includes("error") ? "!" : "✗"} ${table_.get("goal", i) || table_.get("id", i)}`),
    make("span", {}, [table_.get("condition", i), table_.get("type", i), `${table_.get("steps", i)} steps`, table_.get("invalid", i) ? `${table_.get("invalid", i)} refused` : ""].filter(Boolean).join(" · ")),
  ], (i) => showEpisode(i));
  section.append(bar, filters.count, make("div", { class: "split" }, list.element, make("article", { id: "episode", tabindex: "-1" }, make("p", { class: "quiet" }, "Choose an episode."))));
  filter();
}

function filter(among = null) {
  const text = filters.text.value.trim().toLowerCase();
  const wanted = ["condition", "type", "split"].map((name) => [name, filters[name].value]).filter(([, value]) => value);
  const outcome = filters.outcome.value;
  const found = [];
  for (let i = 0; i < table_.count; i++) {
    if (among ? !among.has(i) : text && !table_.searched(i).includes(text)) continue;
    if (wanted.some(([name, value]) => table_.get(name, i) !== value)) continue;
    if (outcome === "success" ? !table_.get("success", i) : outcome === "failure" ? table_.get("success", i) || table_.get("reason", i).startsWith("environment") : outcome && table_.get("reason", i) !== outcome) continue;
    found.push(i);
  }
  const order = filters.order.value;
  if (order) found.sort((a, b) => (table_.get(order, b) ?? -1) - (table_.get(order, a) ?? -1));
  list.set(found);
  filters.count.textContent = `${found.length.toLocaleString("en")} of ${table_.count.toLocaleString("en")} episodes`;
}

/** Looks into every transcript, block by block, so that the page goes on answering. */
async function deepSearch() {
  const text = filters.text.value.trim().toLowerCase();
  if (!text) { filter(); return; }
  const found = new Set();
  for (let block = 0; block < bodies.count; block++) {
    (await unpack(document.getElementById(`body-${block}`).textContent)).forEach((body, i) => {
      const index = block * bodies.size + i;
      if (table_.searched(index).includes(text) || [...body.seen, ...body.done].some((line) => line.toLowerCase().includes(text))) found.add(index);
    });
    filters.count.textContent = `looking into transcripts: ${Math.round(100 * (block + 1) / bodies.count)} %`;
    await new Promise((resolve) => setTimeout(resolve));
  }
  filter(found);
}

function showEpisodes(wanted) {
  show("episodes");
  for (const name of ["condition", "type", "split", "outcome"]) filters[name].value = wanted[name] ?? "";
  filters.text.value = "";
  filter();
}

/** The messages that the model read before a step. */
function promptAt(body, step, shown) {
  const used = shown[Math.max(-1, ...Object.keys(shown).map(Number).filter((n) => n <= step))] ?? [];
  const block = used.length ? "\n\nExperience:" + [...used].reverse().map((one) => `\n\n${one.text?.text ?? `(${one.entry.id}: not at hand)`}`).join("") : "";
  const messages = [["system", report.heads[body.head] + block], ["user", body.seen[0]]];
  for (let n = 0; n < step; n++) messages.push(["assistant", body.said[n] ?? body.done[n]], ["user", body.seen[n + 1]]);
  return messages;
}

async function showEpisode(i) {
  chosen = i;
  const body = await bodies.get(i);
  const shown = {};
  for (const [n, entries] of Object.entries(body.shown)) {
    shown[n] = await Promise.all(entries.map(async (entry) => ({ entry, text: entry.text === undefined ? null : await texts.get(entry.text) })));
  }
  if (chosen !== i) return;
  const get = (name) => table_.get(name, i);
  const article = document.getElementById("episode");
  const won = get("success");
  article.replaceChildren(
    make("h2", {}, get("goal") || get("id")),
    make("ul", { class: "tags" }, [
      make("span", { class: won ? "good" : "bad" }, `${won ? "✓" : "✗"} ${get("reason")}`), `score ${get("score")}`, get("best") > get("score") ? `best ${get("best")}` : null,
      get("condition"), get("type"), get("split"), `${get("steps")} steps`, get("invalid") ? `${get("invalid")} refused` : null,
      get("tokens") === null ? null : `${number(get("tokens"), 0)} tokens`, get("cost") ? `cost ${get("cost")}` : null, `${get("seconds")} s`,
      [get("actor"), body.model].join(" "), ...Object.entries(body.ratings).map(([name, value]) => `rated ${name} ${value}`),
    ].filter(Boolean).map((one) => make("li", {}, one))),
    ...[
      body.detail && make("p", { class: "bad" }, body.detail),
      body.usage.dropped && make("p", { class: "warn" }, `It no longer saw its first ${body.usage.dropped} actions at the end: the conversation outgrew the context.`),
    ].filter(Boolean),
  );
  const repeats = (asked, k) => new Set(body.copies.filter((copy) => copy && copy[0] === asked && copy[1] === k).map((copy) => copy[2]));
  let current = null;
  const scripted = /^(expert|random|replay|copier)/.test(get("actor"));  // they read no prompt
  body.seen.forEach((seen, n) => {
    if (shown[n]) {
      current = shown[n];
      article.append(make("h3", {}, Number(n) ? `Retrieved before step ${n + 1}` : "Retrieved"),
        ...current.map(({ entry, text }, k) => { const card = memoryCard(`memory ${k + 1}`, entry, text, repeats(n, k)); card.id = `memory-${n}-${k}`; return card; }));
    } else if (n === 0) article.append(make("p", { class: "quiet" }, "Nothing was retrieved."));
    article.append(make("div", { class: "turn seen" }, seen));
    if (n === body.done.length) return;
    const copy = body.copies[n];
    const prompt = make("button", { type: "button", "aria-expanded": "false" }, "prompt");
    const turn = make("div", { class: `turn done${body.refused.includes(n) ? " refused" : ""}` },
      body.thoughts[n] ? make("p", { class: "quiet" }, body.thoughts[n]) : null,
      make("span", { class: "say" }, body.done[n] || "(no action)"),
      make("div", { class: "notes" },
        make("span", {}, `step ${n + 1}`),
        body.refused.includes(n) ? make("span", { class: "bad" }, "refused") : null,
        body.reward[n] ? make("span", { class: body.reward[n] > 0 ? "good" : "bad" }, `reward ${body.reward[n]}`) : null,
        copy ? make("span", {}, `repeats step ${copy[2] + 1} of memory ${copy[1] + 1}${copy[3] ? " word for word" : ", about other things"}`) : null,
        scripted ? null : prompt));
    prompt.addEventListener("click", () => {
      const open = turn.querySelector(".read");
      const remarks = [...body.remarks, body.usage.dropped ? "At some step it no longer saw its first actions, which stand here." : ""].filter(Boolean);
      if (open) open.remove();
      else turn.append(make("div", { class: "read" }, remarks.map((text) => make("p", { class: "warn" }, text)), make("pre", { class: "prompt", tabindex: "0", "aria-label": `prompt of step ${n + 1}` }, promptAt(body, n, shown).map(([role, text]) => `[${role}]\n${text}`).join("\n\n"))));
      prompt.setAttribute("aria-expanded", String(!open));
    });
    article.append(turn);
  });
  article.append(make("details", {}, make("summary", {}, "Everything else that was recorded"), facts({
    id: get("id"), task: body.task, room: body.room, adapter: body.adapter, memory_position: body.position, seconds: body.timings, usage: body.usage, started: get("started"),
  })));
  history.replaceState(null, "", `#episode-${i}`);
}

let show;

async function start() {
  report = await unpack(document.getElementById("data").textContent);
  table_ = new Episodes(report.episodes);
  document.getElementById("title").textContent = report.title;
  document.getElementById("made").textContent = `${table_.count.toLocaleString("en")} episodes · made ${report.made} by relive ${report.versions.relive ?? ""}`;
  themeButton(document.getElementById("theme"));
  const parts = [
    { name: "overview", title: "Overview", fill: overview }, { name: "episodes", title: "Episodes", fill: episodes },
    { name: "learning", title: "Learning", fill: learning }, { name: "settings", title: "Settings", fill: settings },
  ].filter((one) => one.name !== "learning" || report.runs.some((run) => run.rounds.length || run.adapters.length));
  const filled = new Set();
  show = tabs(document.getElementById("tabs"), parts, (name) => {
    if (filled.has(name)) return;
    filled.add(name);
    parts.find((one) => one.name === name).fill(document.getElementById(name));
  });
  document.getElementById("loading").remove();
  const asked = /^#episode-(\d+)$/.exec(location.hash);
  show(asked ? "episodes" : "overview");
  if (asked) list.choose(Number(asked[1]));
  performance.mark("ready");
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  document.getElementById("loading").textContent = `This page could not be opened: ${error}`;
  throw error;
});
