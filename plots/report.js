// The report's page: choose, sort, filter, enlarge. All is in the page; without this script all of it shows.
"use strict";
{
  const KEYS = ["kind", "region", "tagger", "attack"];
  const WORTH_A_FILTER = 6; // rows
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

  const form = one("#selection");
  const dialog = one("#large");
  const figures = all("figure[data-file]");
  const tables = all(".table").map((box) => ({ box, table: one("table", box), rows: all("tbody tr", box) }));
  let section = "";
  let opened = null; // the figure in the dialog

  // what is chosen ----------------------------------------------------------------------------------------------------

  // a name, part of a name, or a regular expression
  function finder(text) {
    const plain = text.trim().toLowerCase();
    let pattern = null;
    try {
      pattern = new RegExp(text.trim(), "i");
    } catch {
      // no regular expression: taken as it is written
    }
    return (name) => name.toLowerCase().includes(plain) || (pattern !== null && pattern.test(name));
  }

  const namesIn = new WeakMap();
  function names(element, key) {
    if (!namesIn.has(element)) namesIn.set(element, {});
    const known = namesIn.get(element);
    known[key] ??= JSON.parse(element.dataset[key] ?? "[]");
    return known[key];
  }

  // an element that names nothing is of everything
  const fits = (element, key, value) => !value || !names(element, key).length || names(element, key).includes(value);

  const chosen = () => Object.fromEntries(KEYS.map((key) => [key, form.elements[key].value]));

  function apply() {
    const values = chosen();
    const found = finder(form.elements.variable.value);
    const kept = (element) => KEYS.every((key) => fits(element, key, values[key]));
    for (const figure of figures) {
      figure.hidden = !(kept(figure) && [...names(figure, "variable"), figure.dataset.title].some(found));
    }
    for (const group of all(".group")) group.hidden = !one("figure:not([hidden])", group);
    for (const each of tables) {
      const typed = finder(each.input.value);
      const whole = each.box.closest("#summary"); // of everything, whatever is chosen
      for (const row of each.rows) {
        const of = names(row, "variable");
        row.hidden = !((whole || (kept(row) && (!of.length || of.some(found)))) && typed(row.textContent));
      }
      const left = each.rows.filter((row) => !row.hidden).length;
      each.count.textContent = `${left} of ${each.rows.length} rows`;
      each.line.hidden = each.input.hidden && left === each.rows.length;
      for (const cell of all("[data-attack]:is(th, td)", each.table)) cell.hidden = !fits(cell, "attack", values.attack);
    }
    say(values);
  }

  function say(values) {
    const parts = KEYS.filter((key) => values[key]).map((key) => `${key} ${label(key)}`);
    if (form.elements.variable.value) parts.push(`variable ${form.elements.variable.value}`);
    const text = `${shown().length} of ${figures.length} figures` + (parts.length ? `: ${parts.join(", ")}` : "");
    one("#selection summary").textContent = `Selection: ${text}`;
    one("#count").textContent = text;
  }

  const label = (key) => form.elements[key].selectedOptions[0].textContent;
  const shown = () => figures.filter((figure) => !figure.hidden);

  // in the URL, so that a selection can be shared ---------------------------------------------------------------------

  function write() {
    const parameters = new URLSearchParams();
    for (const key of [...KEYS, "variable"]) {
      if (form.elements[key].value) parameters.set(key, form.elements[key].value);
    }
    if (section) parameters.set("section", section);
    if (opened) parameters.set("figure", opened.dataset.file);
    const text = parameters.toString();
    history.replaceState(null, "", location.href.split("#")[0] + (text ? `#${text}` : ""));
  }

  function read() {
    const text = location.hash.slice(1);
    const plain = text !== "" && !text.includes("="); // a link to a section leaves the selection
    const parameters = new URLSearchParams(plain ? { section: text } : text);
    if (!plain) {
      for (const key of [...KEYS, "variable"]) form.elements[key].value = parameters.get(key) ?? "";
      for (const key of KEYS) if (form.elements[key].selectedIndex < 0) form.elements[key].selectedIndex = 0;
    }
    section = parameters.get("section") ?? "";
    apply();
    const figure = figures.find((each) => each.dataset.file === parameters.get("figure"));
    if (figure) enlarge(figure);
    else if (dialog.open) dialog.close();
    document.documentElement.style.scrollPaddingTop = `${one(".bar").offsetHeight + 8}px`;
    if (section) document.getElementById(section)?.scrollIntoView();
    write();
  }

  // pictures ----------------------------------------------------------------------------------------------------------

  // a picture waits in a <noscript>, which costs nothing, until it is needed
  function load(figure) {
    const waiting = one("noscript", figure);
    if (waiting) {
      const made = make("template", { innerHTML: waiting.textContent });
      waiting.replaceWith(made.content);
    }
    return one("img", figure);
  }

  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((each) => each.isIntersecting)) {
        load(entry.target);
        near.unobserve(entry.target);
      }
    },
    { rootMargin: "600px" },
  );

  function enlarge(figure) {
    opened = figure;
    const list = shown();
    const place = list.indexOf(figure);
    const { title, pdf } = figure.dataset;
    one("#large-title").textContent = title;
    one("#large-place").textContent = place < 0 ? "" : `${place + 1} of ${list.length}`;
    one("#large-png").href = one(".frame", figure).href;
    one("#large-pdf").hidden = !pdf;
    if (pdf) one("#large-pdf").href = pdf;
    one("#large-image").replaceChildren(load(figure).cloneNode());
    for (const button of all("[data-step]", dialog)) button.disabled = !list[place + Number(button.dataset.step)];
    if (!dialog.open) dialog.showModal();
    write();
  }

  function step(by) {
    const list = shown();
    const next = list[list.indexOf(opened) + by];
    if (opened && next) enlarge(next);
  }

  // tables ------------------------------------------------------------------------------------------------------------

  const words = new Intl.Collator(undefined, { numeric: true });

  function sort(each, head, direction) {
    const index = head.cellIndex;
    const number = head.dataset.sort === "number";
    const key = (row) => (number ? row.cells[index].dataset.value : row.cells[index].textContent);
    const sign = direction === "descending" ? -1 : 1;
    const compare = (a, b) => sign * (number ? a[0] - b[0] : words.compare(a[0], b[0]));
    let rows = each.rows;
    if (direction) {
      const keyed = rows.map((row) => [key(row), row]);
      const there = keyed.filter(([value]) => value !== undefined && value !== "").sort(compare);
      rows = [...there, ...keyed.filter(([value]) => value === undefined || value === "")].map(([, row]) => row);
    }
    each.table.tBodies[0].append(...rows);
    each.table.classList.toggle("sorted", Boolean(direction));
    for (const other of each.table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    if (direction) head.setAttribute("aria-sort", direction);
  }

  function equip(each) {
    const next = { ascending: "descending", descending: "" };
    for (const head of each.table.tHead.rows[0].cells) {
      const button = make("button", { type: "button", textContent: head.textContent });
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        sort(each, head, now ? next[now] : "ascending");
      });
      head.replaceChildren(button);
    }
    each.line = make("div", { className: "filter" });
    each.input = make("input", { type: "search", placeholder: "text or regular expression", ariaLabel: "filter rows" });
    each.input.hidden = each.rows.length < WORTH_A_FILTER;
    each.input.addEventListener("input", apply);
    each.count = make("span", { ariaLive: "polite" });
    each.line.append(each.input, each.count);
    each.box.prepend(each.line);
  }

  // what the user does ------------------------------------------------------------------------------------------------

  function change() {
    apply();
    write();
  }

  tables.forEach(equip);
  form.hidden = false;
  one("details", form).open = innerWidth > 640;
  form.addEventListener("input", change);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(change)); // the fields are empty after this event
  one("#print").addEventListener("click", async () => {
    await Promise.allSettled(shown().map((figure) => load(figure).decode()));
    print();
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.frame, a[data-file]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const file = link.dataset.file ?? link.closest("figure").dataset.file;
    const figure = figures.find((each) => each.dataset.file === file);
    if (!figure) return;
    event.preventDefault();
    enlarge(figure);
  });

  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
    const by = event.target.closest("[data-step]")?.dataset.step;
    if (by) step(Number(by));
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
  });
  dialog.addEventListener("close", () => {
    one(".frame", opened)?.focus(); // where the arrows have led, not where they began
    opened = null;
    write();
  });

  addEventListener("hashchange", read);
  addEventListener("beforeprint", () => shown().forEach(load));
  matchMedia("print").addEventListener("change", (event) => event.matches && shown().forEach(load));

  read();
  for (const figure of figures) near.observe(figure);
}
