"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const cards = [...document.querySelectorAll("article")]; // the most doubtful first
  const reviewer = document.getElementById("reviewer");
  const told = document.getElementById("told");
  const cardOf = new Map(cards.map((card) => [Number(card.dataset.row), card]));
  const decisions = new Map(); // by the number of the row in the table
  let undoable = []; // of this page, the last one at the end: { row, before }
  const PREFIX = `jawloc-review-${data.place}-`;
  const NAMES = { accepted: "accepted", moved: "moved", absent: "not in this scan", skipped: "skipped" };
  let current = 0;

  // --- what the browser keeps: an item for each position, so that two tabs don't undo each other

  function keep(name, value) {
    try {
      if (value === null) localStorage.removeItem(PREFIX + name);
      else localStorage.setItem(PREFIX + name, JSON.stringify(value));
    } catch {
      told.textContent = "This browser keeps nothing: save review.csv before you close the page.";
    }
  }

  function kept(name) {
    try {
      return JSON.parse(localStorage.getItem(PREFIX + name));
    } catch {
      return null;
    }
  }

  function isDecision(value) {
    const isText = (text) => typeof text === "string";
    return value !== null && typeof value === "object" && Object.hasOwn(NAMES, value.verdict)
      && [value.reviewer, value.time].every(isText) && !Number.isNaN(Date.parse(value.time))
      && Array.isArray(value.position) && value.position.length === 3
      && value.position.every(isText);
  }

  // --- decisions

  function now() { // as Python writes a time
    return new Date().toISOString().replace(/\.\d+Z$/, "Z");
  }

  function numberText(text) { // as Python writes a coordinate; null: none inside a scan
    const plain = text.trim().replace(",", ".");
    if (!/^[+-]?(\d+\.?\d*|\.\d+)$/.test(plain)) return null;
    const value = Number(plain);
    if (!(value >= -0.5 && value < 1e9)) return null;
    return (value + 0).toFixed(6).replace(/\.?0+$/, "").replace(/^-0$/, "0");
  }

  function result(row, decision) { // [verdict, z, y, x]; null while a position is unfinished
    const found = data.rows[row].position;
    if (decision.verdict === "accepted") return ["accepted", ...found];
    if (decision.verdict !== "moved") return [decision.verdict, "", "", ""];
    const position = decision.position.map(numberText);
    if (position.includes(null)) return null;
    const same = found !== null && position.every((text, axis) => text === found[axis]);
    return [same ? "accepted" : "moved", ...position];
  }

  function decide(card, verdict) {
    const row = Number(card.dataset.row);
    const typed = fields(card).map((field) => field.value);
    const found = data.rows[row].position, before = decisions.get(row);
    const typesOn = verdict === "moved" && before?.verdict === "moved";
    if (!(typesOn && undoable.at(-1)?.row === row)) undoable.push({ row, before });
    decisions.set(row, {
      verdict,
      position: verdict === "moved" ? typed : found ?? ["", "", ""],
      reviewer: reviewer.value.trim(),
      time: now(),
    });
    keep(data.rows[row].id, decisions.get(row));
    show(card);
    count();
  }

  function undo() { // the last decision, wherever it led to, as in napari
    if (!undoable.length) return;
    const { row, before } = undoable.pop(), card = cardOf.get(row);
    if (before) decisions.set(row, before);
    else decisions.delete(row);
    // with a time, as review.csv may have what is undone here, or what was decided after it
    keep(data.rows[row].id, { undone: true, before: before ?? null, time: now() });
    show(card);
    count();
    go(cards.indexOf(card));
  }

  function load() {
    decisions.clear();
    for (const { row, ...decision } of data.decisions) {
      decisions.set(row, { ...decision, position: decision.position ?? data.rows[row].position ?? ["", "", ""] });
    }
    data.rows.forEach((row, number) => {
      const own = kept(row.id), earlier = decisions.get(number);
      const isOlder = earlier && !(Date.parse(own?.time) >= Date.parse(earlier.time));
      const decision = own?.undone ? own.before : own;
      if (isOlder) return;
      if (isDecision(decision) && choices(number).has(decision.verdict)) decisions.set(number, decision);
      else if (own?.undone) decisions.delete(number);
    });
    cards.forEach(show);
    count();
  }

  // --- what the page shows

  function fields(card) {
    return [...card.querySelectorAll("[data-axis]")];
  }

  function radios(card) {
    return [...card.querySelectorAll("input[type=radio]")];
  }

  function choices(row) {
    return new Set(radios(cardOf.get(row)).map((radio) => radio.value));
  }

  function show(card) {
    const row = Number(card.dataset.row), decision = decisions.get(row);
    const done = decision ? result(row, decision) : null;
    for (const radio of radios(card)) radio.checked = decision?.verdict === radio.value;
    fields(card).forEach((field, axis) => {
      const text = (decision?.position ?? data.rows[row].position ?? ["", "", ""])[axis];
      if (field !== document.activeElement) field.value = text;
    });
    card.classList.toggle("decided", done !== null);
    card.classList.toggle("unfinished", Boolean(decision) && done === null);
    const by = decision?.reviewer ? ` by ${decision.reviewer}` : "";
    card.querySelector(".said").textContent = !decision ? ""
      : done === null ? "! z, y and x must be numbers from -0.5 on" : `\u2713 ${NAMES[done[0]]}${by}`;
  }

  function count() {
    const done = cards.filter((card) => card.classList.contains("decided")).length;
    const left = cards.length - done;
    document.getElementById("left").textContent = left
      ? `${left} of ${cards.length} left` : `all ${cards.length} decided`;
  }

  function go(to, focus = true) {
    if (to < 0 || to >= cards.length) return;
    cards[current].classList.remove("current");
    current = to;
    cards[current].classList.add("current");
    if (!focus) return;
    cards[current].focus({ preventScroll: true });
    cards[current].scrollIntoView({ block: "nearest" });
  }

  // --- review.csv, as Python writes it

  function asCell(text) { // so that no table program takes it for a formula
    return /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  }

  function csv() {
    const lines = [data.columns];
    data.rows.forEach((row, number) => {
      const decision = decisions.get(number), done = decision && result(number, decision);
      if (!done) return;
      const about = [decision.reviewer || reviewer.value.trim(), decision.time, row.model, row.path];
      lines.push([asCell(row.scan), asCell(row.object ?? ""), ...done, ...about.map(asCell)]);
    });
    // a review decides once about an object of a scan, wherever its file lies
    const decided = new Set(lines.map(([scan, object]) => JSON.stringify([scan, object])));
    lines.push(...data.others.filter(([scan, object]) =>
      !decided.has(JSON.stringify([scan, object]))));
    const all = lines.flat().some((cell) => cell.includes("\r"));
    const quoted = (cell) => all || /[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
    return lines.map((line) => line.map(quoted).join(",") + "\n").join("");
  }

  function save() {
    // a byte of a file's name that isn't UTF-8 is half a character here
    const parts = csv().split(/([\udc80-\udcff])/u).map((part, index) =>
      index % 2 ? new Uint8Array([part.charCodeAt(0) - 0xdc00]) : part);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
    link.download = "review.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    const done = document.querySelectorAll("article.decided").length;
    told.textContent = `Saved ${done} decision${done === 1 ? "" : "s"} as review.csv.`;
  }

  // --- keys and clicks

  const KEYS = {
    a: "accepted", x: "absent", s: "skipped", j: 1, ArrowDown: 1, ArrowRight: 1,
    k: -1, ArrowUp: -1, ArrowLeft: -1,
  };

  function pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const card = cards[current];
    if (event.target.matches("input[type=text]")) {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();
      event.target.blur();
      if (event.target !== reviewer) go(current + (event.key === "Enter" ? 1 : 0));
      return;
    }
    const meant = KEYS[event.key];
    if (typeof meant === "number") go(current + meant);
    else if (event.repeat) return; // a key that is held decides about one position
    else if (event.key === "u") undo();
    else if (event.key === "m" && fields(card).length) fields(card)[0].select();
    else if (meant && choices(Number(card.dataset.row)).has(meant)) {
      decide(card, meant);
      go(current + 1);
    } else return;
    event.preventDefault();
  }

  cards.forEach((card, index) => {
    card.addEventListener("focusin", () => go(index, false));
    card.addEventListener("click", () => go(index, false));
    for (const radio of radios(card)) {
      radio.addEventListener("change", () => {
        decide(card, radio.value);
        if (radio.value === "moved") fields(card)[0].select();
      });
    }
    for (const field of fields(card)) {
      field.addEventListener("input", () => decide(card, "moved"));
      field.addEventListener("blur", () => show(card));
    }
  });
  const named = kept("reviewer"); // typed here, where the page was given that name
  reviewer.value = Array.isArray(named) && named[0] === reviewer.defaultValue
    ? String(named[1]) : reviewer.defaultValue;
  reviewer.addEventListener("input", () => keep("reviewer", [reviewer.defaultValue, reviewer.value]));
  document.getElementById("save").addEventListener("click", save);
  document.addEventListener("keydown", pressed);
  window.addEventListener("storage", (event) => {
    // what another tab has decided since is not undone in this one
    undoable = undoable.filter(({ row }) => PREFIX + data.rows[row].id !== event.key);
    load();
  });
  load();
  const first = cards.findIndex((card) => !card.classList.contains("decided"));
  go(Math.max(first, 0), first > 0);
})();
