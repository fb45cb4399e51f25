"use strict";
/* What pages have in common. Whatever episodes say becomes text nodes, never markup. */

/** An element with attributes and children; texts become text nodes. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** JSON from a packed block. */
async function unpack(packed) {
  const letters = atob(packed.trim());
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** Items that lie in packed blocks `name-0`, `name-1`, …; a few blocks stay unpacked. */
class Packed {
  constructor(name) {
    this.name = name;
    this.size = Number(document.getElementById(`${name}-0`)?.dataset.size ?? 1);
    this.kept = new Map();
  }
  get count() { return document.querySelectorAll(`script[id^="${this.name}-"]`).length; }
  async block(number) {
    if (!this.kept.has(number)) {
      if (this.kept.size >= 40) this.kept.delete(this.kept.keys().next().value);
      this.kept.set(number, unpack(document.getElementById(`${this.name}-${number}`).textContent));
    }
    return this.kept.get(number);
  }
  async get(index) { return (await this.block(Math.floor(index / this.size)))[index % this.size]; }
}

const percent = (value) => value === null || value === undefined ? "–" : (100 * value).toFixed(1);
const number = (value, digits = 1) => value === null || value === undefined ? "–"
  : value.toLocaleString("en", { maximumFractionDigits: digits });

/** A table: columns are [heading, function of a row, whether it is text]. */
function table(caption, columns, rows) {
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {},
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, columns.map(([name, , text]) => make("th", { scope: "col", class: text && "text" }, name)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, columns.map(([, cell, text], i) =>
        make(i ? "td" : "th", { scope: i ? null : "row", class: text && "text" }, cell(row))))))));
}

/** A list of names and values, nested objects flattened. */
function facts(object, prefix = "") {
  const list = make("dl");
  const add = (name, value) => {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      for (const [key, inner] of Object.entries(value)) add(name ? `${name}.${key}` : key, inner);
    } else {
      const nested = Array.isArray(value) && value.some((one) => one !== null && typeof one === "object");
      list.append(make("dt", {}, name), make("dd", {}, nested ? JSON.stringify(value) : Array.isArray(value) ? value.join(" ") : String(value)));
    }
  };
  add(prefix, object);
  return list;
}

/** A list of which only what is in view exists: thousands of items cost no more than twenty. */
class LongList {
  constructor(label, height, draw, chosen) {
    this.height = height; this.draw = draw; this.chosen = chosen;
    this.items = []; this.at = -1;
    this.room = make("div", { class: "room" });
    this.element = make("div", {
      class: "list", role: "listbox", tabindex: "0", "aria-label": label,
      onscroll: () => this.show(), onkeydown: (event) => this.key(event),
    }, this.room);
    new ResizeObserver(() => this.show()).observe(this.element);
  }
  /** Other items, of which the one at `at` is chosen; `keep` leaves the list where it is. */
  set(items, at = -1, keep = false) {
    this.items = items; this.at = at;
    this.room.style.height = `${items.length * this.height}px`;
    if (!keep) this.element.scrollTop = 0;
    this.show();
  }
  show() {
    const first = Math.max(0, Math.floor(this.element.scrollTop / this.height) - 4);
    const last = Math.min(this.items.length, first + Math.ceil(this.element.clientHeight / this.height) + 8);
    this.room.replaceChildren(...this.items.slice(first, last).map((item, i) => {
      const at = first + i;
      const element = make("div", {
        class: "item", role: "option", id: `item-${at}`, "aria-selected": String(at === this.at),
        "aria-setsize": this.items.length, "aria-posinset": at + 1,
        onclick: () => this.choose(at),
      }, this.draw(item));
      element.style.top = `${at * this.height}px`;
      return element;
    }));
    if (this.at >= first && this.at < last) this.element.setAttribute("aria-activedescendant", `item-${this.at}`);
    else this.element.removeAttribute("aria-activedescendant");
  }
  choose(at) {
    if (at < 0 || at >= this.items.length) return;
    this.at = at;
    const top = at * this.height;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + this.height > this.element.scrollTop + this.element.clientHeight) this.element.scrollTop = top + this.height - this.element.clientHeight;
    this.show();
    this.chosen(this.items[at]);
  }
  key(event) {
    const page = Math.floor(this.element.clientHeight / this.height);
    const moves = { ArrowDown: this.at + 1, ArrowUp: this.at - 1, Home: 0, End: this.items.length - 1, PageDown: this.at + page, PageUp: this.at - page };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(this.items.length - 1, moves[event.key])));
  }
}

/** Tabs that arrow keys move between; `open` is called when one is shown. */
function tabs(bar, parts, open) {
  const show = (name, focus) => {
    for (const one of parts) {
      const tab = document.getElementById(`tab-${one.name}`);
      tab.setAttribute("aria-selected", String(one.name === name));
      tab.tabIndex = one.name === name ? 0 : -1;
      document.getElementById(one.name).hidden = one.name !== name;
      if (focus && one.name === name) tab.focus();
    }
    open(name);
  };
  parts.forEach((one, i) => bar.append(make("button", {
    type: "button", role: "tab", id: `tab-${one.name}`, "aria-controls": one.name, "aria-selected": "false",
    onclick: () => show(one.name),
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) show(parts[(i + step + parts.length) % parts.length].name, true);
    },
  }, one.title)));
  return show;
}

/** Light or dark by a person's choice, for as long as the page is open. */
function themeButton(button) {
  button.addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
  });
}

/** Why a past episode was chosen, in words. */
function explained(why) {
  if (!why) return null;
  const parts = [`similarity ${why.similarity} by ${why.by}`];
  for (const name of ["usefulness", "rating"]) if (why[name]) parts.push(`${name} ${why[name] > 0 ? "+" : ""}${why[name]}`);
  if (why.length) parts.push(`length −${Math.abs(why.length)}`);
  if (why.redundancy) parts.push(`like those before it ${why.redundancy}`);
  parts.push(`rank ${why.rank}`);
  if (why.held_out) parts.push(`${why.held_out} closer held out`);
  if (why.filtered) parts.push(`${why.filtered} closer not wanted`);
  if (!why.exact) parts.push("approximate search");
  return parts.join(" · ");
}

/** A past episode as it was shown; `repeated` are the steps of it that some action repeats. */
function memoryCard(label, entry, text, repeated = new Set()) {
  const card = make("div", { class: "memory" },
    make("ul", { class: "tags" },
      make("li", {}, make("b", {}, label)), make("li", {}, entry.id),
      make("li", {}, `score ${entry.score}`),
      entry.tokens === undefined ? null : make("li", {}, `${entry.tokens} tokens`)),
    entry.why ? make("p", { class: "quiet" }, explained(entry.why)) : null);
  if (!text) {
    card.append(make("p", { class: "quiet" }, `Its text is not known: ${entry.unknown}.`));
    return card;
  }
  const lines = make("pre", {}, text.text.split("\n")[0], "\n");
  text.steps.forEach(([action, seen], i) => lines.append(make("span", {
    class: repeated.has(i) ? "repeated" : null, "data-step": i,
  }, action ? `Action: ${action}\nObservation: ${seen}\n` : `${seen}\n`)));
  card.append(make("details", { open: repeated.size > 0 }, make("summary", {}, "What was shown of it"), lines));
  return card;
}
