"use strict";
/* A memory to look around in: search it, see what helped, and say what is wrong. */

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#a08000", "#808080"];
let token, view, list, show;
const KEPT = "relive-token"; // in this tab alone, so that it can be loaded again

async function ask(path, body) {
  const answer = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers: { "X-Relive-Token": token, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

const say = (text) => { document.getElementById("said").textContent = text; };
const guarded = (act) => async (...given) => {
  try { say(""); return await act(...given); } catch (error) { say(String(error.message ?? error)); }
};
const get = (name, i) => view.entries[name][i];
const count = () => view.entries.id.length;

/** What a person thinks of an entry, in a word. */
function thought(human, unsafe) {
  if (unsafe > 0) return "unsafe";
  return human > 0 ? "helpful" : human < 0 ? "wrong" : "";
}

function hitItem(hit, heldBack) {
  return make("li", { class: heldBack ? "held" : null },
    make("button", { type: "button", class: "link", onclick: guarded(() => showEpisode(hit.id)) }, `${hit.success ? "✓" : "✗"} ${hit.goal || hit.id}`),
    make("div", { class: "quiet" }, `score ${hit.score} · ${hit.type} · ${explained(hit.why)}`));
}

function search(section) {
  const text = make("input", { type: "search", id: "text", size: 40 });
  const fields = { k: ["hits", 5, 1, 1], usefulness: ["usefulness", 0, 0, 0.1], ratings: ["ratings", 0, 0, 0.1], length_penalty: ["length penalty", 0, 0, 0.01], diversity: ["diversity", 0, 0, 0.1] };
  const inputs = Object.fromEntries(Object.entries(fields).map(([name, [, value, min, step]]) => [name, make("input", { type: "number", id: `q-${name}`, value, min, step })]));
  const all = make("input", { type: "checkbox", id: "q-all" });
  const as = make("input", { type: "text", id: "q-as", placeholder: "id of an entry" });
  const results = make("ol", { id: "hits", class: "hits" });
  const held = make("div", { id: "held" });
  const form = make("form", { class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); run(); } },
    make("label", {}, "What an agent would ask", text),
    Object.entries(fields).map(([name, [label]]) => make("label", {}, label, inputs[name])),
    make("label", { class: "check" }, all, "failures, too"),
    make("label", {}, "as whoever plays the task of", as),
    make("button", { type: "submit", id: "go" }, "search"));
  const run = guarded(async () => {
    const asked = { text: text.value, all: all.checked, as: as.value.trim() };
    for (const [name, input] of Object.entries(inputs)) asked[name] = Number(input.value);
    const found = await ask(`/api/search?q=${encodeURIComponent(JSON.stringify(asked))}`);
    results.replaceChildren(...found.hits.map((hit) => hitItem(hit)));
    held.replaceChildren(...(found.held_back.length ? [make("h3", {}, "Kept back from whoever plays that task"), make("ol", { class: "hits" }, found.held_back.map((hit) => hitItem(hit, true)))] : []));
    if (!found.hits.length) results.append(make("li", {}, "nothing"));
  });
  section.append(form, results, held);
}

function entries(section) {
  const text = make("input", { type: "search", id: "find", oninput: () => filter() });
  const selects = {};
  const bar = make("form", { class: "filters", onsubmit: (event) => event.preventDefault() }, make("label", {}, "Goal, type or id", text));
  for (const [name, values] of Object.entries({
    type: [...new Set(view.entries.type)], outcome: ["success", "failure"], rated: ["helpful", "wrong", "unsafe", "not rated"],
    who: [...new Set(view.entries.who)],
  })) {
    selects[name] = make("select", { id: `filter-${name}`, onchange: () => filter() }, make("option", { value: "" }, "all"), values.sort().map((value) => make("option", { value }, value)));
    bar.append(make("label", {}, name, selects[name]));
  }
  const counted = make("p", { class: "quiet", role: "status", id: "count" });
  list = new LongList("Entries", 56, (i) => [
    make("b", {}, `${get("success", i) ? "✓" : "✗"} ${get("goal", i) || get("id", i)}`),
    make("span", {}, [get("type", i), `${get("steps", i)} steps`, get("who", i), thought(get("human", i), get("unsafe", i)), get("shown", i) ? `shown ${get("shown", i)} times` : ""].filter(Boolean).join(" · ")),
  ], guarded((i) => { open = get("id", i); return showEpisode(open); }));
  let open = null;
  const filter = (keep = false) => {
    const wanted = text.value.trim().toLowerCase();
    const found = [];
    for (let i = 0; i < count(); i++) {
      if (wanted && !`${get("goal", i)}\n${get("type", i)}\n${get("id", i)}`.toLowerCase().includes(wanted)) continue;
      if (selects.type.value && get("type", i) !== selects.type.value) continue;
      if (selects.who.value && get("who", i) !== selects.who.value) continue;
      if (selects.outcome.value && (selects.outcome.value === "success") !== Boolean(get("success", i))) continue;
      if (selects.rated.value && (thought(get("human", i), get("unsafe", i)) || "not rated") !== selects.rated.value) continue;
      found.push(i);
    }
    list.set(found, keep ? found.findIndex((i) => get("id", i) === open) : -1, keep);
    counted.textContent = `${found.length.toLocaleString("en")} of ${count().toLocaleString("en")} entries`;
  };
  section.append(bar, counted, list.element);
  section.refresh = () => filter(true);
  filter();
}

function map(section) {
  const by = make("select", { id: "map-by", onchange: () => draw() }, ["type", "outcome", "age", "usefulness", "rating"].map((value) => make("option", { value }, value)));
  const place = make("div", { id: "plot" });
  const draw = () => {
    const points = [];
    for (let i = 0; i < count(); i++) if (get("x", i) !== null) points.push({
      i, id: get("id", i), goal: get("goal", i), x: get("x", i), y: get("y", i), type: get("type", i), outcome: get("success", i) ? "success" : "failure", age: i,
      usefulness: get("useful", i), rating: thought(get("human", i), get("unsafe", i)) || "not rated",
    });
    const named = ["type", "outcome", "rating"].includes(by.value);
    const plot = Plot.plot({
      style: { background: "transparent", color: "currentColor" }, width: 640, height: 520, x: { axis: null }, y: { axis: null }, inset: 12,
      color: named ? { legend: true, range: COLOURS, type: "categorical" } : { legend: true, scheme: "viridis", label: by.value },
      marks: [Plot.dot(points, { x: "x", y: "y", fill: by.value, symbol: named ? by.value : "circle", r: 4, fillOpacity: 0.8, title: (p) => `${p.goal} (${p.type}, ${p.outcome})` })],
    });
    for (const part of plot.querySelectorAll("[aria-label], [aria-description]")) { part.removeAttribute("aria-label"); part.removeAttribute("aria-description"); }
    const drawing = plot.matches("svg") ? plot : [...plot.children].findLast((child) => child.matches("svg"));
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", `Map of ${points.length} entries by what their goals say, coloured by ${by.value}`);
    drawing.querySelectorAll("g > [transform], circle, path").forEach((dot) => {
      const title = dot.querySelector("title");
      if (title) dot.style.cursor = "pointer";
    });
    drawing.addEventListener("click", guarded((event) => {
      const marks = [...drawing.querySelectorAll("title")].map((title) => title.parentNode);
      const n = marks.indexOf(event.target);
      if (n >= 0) return showEpisode(points[n].id);
    }));
    place.replaceChildren(plot);
  };
  section.append(make("div", { class: "filters" }, make("label", {}, "coloured by", by)),
    make("p", { class: "quiet" }, "Two directions in which goals differ most (principal components of their vectors). The list beside it has the same entries for the keyboard."), place);
  draw();
}

function worth(section) {
  const known = [...Array(count()).keys()].filter((i) => get("shown", i) > 0);
  const row = (i) => {
    const id = get("id", i); // what stands at i may be another one later
    return [make("button", { type: "button", class: "link", onclick: guarded(() => showEpisode(id)) }, get("goal", i) || id)];
  };
  const columns = [["entry", row, true], ["type", (i) => get("type", i), true], ["shown", (i) => get("shown", i)], ["usefulness", (i) => get("useful", i)]];
  const sorted = (sign) => known.filter((i) => sign * get("useful", i) > 0).sort((a, b) => sign * (get("useful", b) - get("useful", a))).slice(0, 50);
  section.append(make("h2", {}, "Entries that helped"), table("By the estimated difference in success that showing them made", columns, sorted(1)),
    make("h2", {}, "Entries that hurt"), table("The other way round", columns, sorted(-1)));
  section.append(make("h2", {}, "Duplicates"));
  if (!view.duplicates.length) section.append(make("p", { class: "quiet" }, "No task has two entries that ended alike."));
  for (const group of view.duplicates.slice(0, 200)) section.append(make("p", {}, `${group.length} of one task: `,
    group.map((id) => [make("button", { type: "button", class: "link", onclick: guarded(() => showEpisode(id)) }, id), " "]).flat()));
  section.append(make("h2", {}, "Deleted"));
  if (!view.deleted.length) section.append(make("p", { class: "quiet" }, "Nothing that could be restored."));
  for (const gone of view.deleted) section.append(make("p", {}, `${gone.goal || gone.id} (${gone.type}) `,
    view.writable ? make("button", { type: "button", class: "restore", onclick: guarded(async () => { await change("restore", { id: gone.id }); await showEpisode(gone.id); }) }, "restore") : null));
}

/** Writes to the log; where it is about one entry alone, the others are not read again. */
async function change(what, told) {
  const { row } = await ask(`/api/${what}`, told);
  if (!row) return refresh();
  const at = view.entries.id.indexOf(row.id);
  for (const [name, value] of Object.entries(row)) view.entries[name][at] = value;
  redraw();
}

async function refresh() {
  view = await ask("/api/memory");
  redraw();
}

/** Shows what is known of the entries now; the list stays where it was. */
function redraw() {
  document.getElementById("made").textContent = `${count().toLocaleString("en")} entries${view.writable ? "" : ", read only"}`;
  for (const section of ["map", "worth"]) document.getElementById(section).dataset.stale = "yes";
  const open = ["map", "worth"].find((name) => !document.getElementById(name).hidden);
  if (open && show) show(open);
  document.getElementById("entries").refresh?.();
}

async function showEpisode(id) {
  const one = await ask(`/api/episode?id=${encodeURIComponent(id)}`);
  const note = make("input", { type: "text", id: "note", "aria-label": "A remark" });
  const rate = (name, value) => guarded(async () => { await change("rate", { id, name, value }); await showEpisode(id); });
  const state = thought(one.ratings.human, one.ratings.unsafe);
  const buttons = view.writable ? make("div", { class: "filters", id: "acts" },
    [["helpful", "human", 1], ["wrong", "human", -1], ["unsafe", "unsafe", 1]].map(([label, name, value]) => make("button", {
      type: "button", id: `rate-${label}`, "aria-pressed": String(state === label), onclick: rate(name, state === label ? null : value),
    }, label)),
    note, make("button", { type: "button", id: "annotate", onclick: guarded(async () => { await change("annotate", { id, text: note.value }); await showEpisode(id); }) }, "add the remark"),
    make("button", { type: "button", id: "delete", onclick: guarded(async () => { await change("delete", { id }); gone(id); }) }, "delete")) : null;
  const place = document.getElementById("episode");
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  place.replaceChildren(...[
    make("h2", {}, one.goal || one.id),
    make("ul", { class: "tags" }, [
      make("span", { class: one.success ? "good" : "bad" }, `${one.success ? "✓" : "✗"} ${one.reason}`), one.id, one.task.type, one.task.suite, one.task.split, one.who, `score ${one.score}`,
      ...Object.entries(one.ratings).map(([name, value]) => `rated ${name} ${value}`),
      one.usefulness.shown ? `shown to ${one.usefulness.shown} runs, ${one.usefulness.solved} solved, ${number(one.usefulness.expected)} expected without it` : null,
    ].filter(Boolean).map((tag) => make("li", {}, tag))),
    buttons,
    one.notes.length ? make("ul", { id: "notes" }, one.notes.map((text) => make("li", {}, text))) : null,
    one.detail ? make("p", { class: "bad" }, one.detail) : null,
    ...one.seen.flatMap((seen, n) => [make("div", { class: "turn seen" }, seen), n < one.done.length ? make("div", { class: `turn done${one.refused.includes(n) ? " refused" : ""}` },
      make("span", { class: "say" }, one.done[n] || "(no action)"), make("div", { class: "notes" }, make("span", {}, `step ${n + 1}`), one.refused.includes(n) ? make("span", { class: "bad" }, "refused") : null)) : null]),
  ].filter(Boolean));
  if (focused) document.getElementById(focused)?.focus();
}

/** What stands where a deleted episode stood: the way back. */
function gone(id) {
  document.getElementById("episode").replaceChildren(make("p", {}, `${id} was deleted. `),
    make("button", { type: "button", id: "undo", onclick: guarded(async () => { await change("restore", { id }); await showEpisode(id); }) }, "undo"));
  document.getElementById("undo").focus();
}

/** Lets this tab in: by the address that opened it, which works once, or as it was let in before. */
async function enter() {
  const ticket = location.hash.slice(1);
  history.replaceState(null, "", "/");
  token = sessionStorage.getItem(KEPT) ?? "";
  if (ticket) {
    try { token = (await ask("/api/open", { ticket })).token; } catch (error) { if (!token) throw error; }
  }
  sessionStorage.setItem(KEPT, token);
}

async function start() {
  await enter();
  themeButton(document.getElementById("theme"));
  await refresh();
  document.getElementById("title").textContent = `Memory: ${view.path}`;
  const parts = [
    { name: "search", title: "Search", fill: search }, { name: "entries", title: "Entries", fill: entries },
    { name: "map", title: "Map", fill: map }, { name: "worth", title: "What helped", fill: worth },
  ];
  const filled = new Set();
  show = tabs(document.getElementById("tabs"), parts, (name) => {
    const section = document.getElementById(name);
    if (filled.has(name) && !section.dataset.stale) return;
    filled.add(name);
    delete section.dataset.stale;
    section.replaceChildren();
    parts.find((one) => one.name === name).fill(section);
  });
  document.getElementById("loading").remove();
  show("search");
  performance.mark("ready");
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  document.getElementById("said").textContent = `This page could not be opened: ${error.message}`;
  throw error;
});
