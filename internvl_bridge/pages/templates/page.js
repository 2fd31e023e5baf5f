"use strict";
(() => {
  const PIECE = 100;

  // Three digits as Python's .3g has them: of two that are equally near, the even one.
  const measureText = (value) => {
    if (typeof value === "string") return value;
    if (value === 0) return "0";
    let [digits, power] = value.toExponential(2).split("e");
    const exact = value.toExponential(20).split("e");
    if (/^\d\.\d[02468]50*$/.test(exact[0])) [digits, power] = [exact[0].slice(0, 4), exact[1]];
    if (Number(power) >= -4 && Number(power) < 3) return String(Number(`${digits}e${power}`));
    return `${Number(digits)}e${power[0]}${power.slice(1).padStart(2, "0")}`;
  };

  const shown = (value, kind) => {
    if (kind === "size") return value[1];
    if (kind === "measure") return measureText(value);
    if (kind === "number") return value.toLocaleString("en");
    return value;
  };

  const isNumber = (kind) => kind === "size" || kind === "measure" || kind === "number";

  const filled = (text, numbers) => {
    let next = 0;
    return text.replace(/\*/g, (star) => (next < numbers.length ? numbers[next++] : star));
  };

  // Each word begins anew: it is a key that the numbers belong to.
  const filledWords = (text, numbers) => text.replace(/[^\s,]+/g, (word) => filled(word, numbers));

  const unpacked = (data) =>
    data.rows.map(([number, stars, ...own]) => {
      const [name, ...shared] = data.groups[number];
      const numbers = stars ? stars.split(" ") : [];
      const values = data.columns.map((column) => {
        const value = column.shared ? shared.shift() : own.shift();
        if (isNumber(column.kind)) return value;
        return column.shared ? filledWords(value, numbers) : data.words[value];
      });
      return { group: number, key: filled(name, numbers), values };
    });

  const element = (name, text, parent) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };

  // Keys can go on in another line after their dots and underscores.
  const breakable = (text, parent) => {
    for (const piece of text.split(/(?<=[._])/)) {
      parent.append(piece);
      element("wbr", undefined, parent);
    }
  };

  // What cannot be measured comes first: it is the most suspicious.
  const rank = (value) => (Array.isArray(value) ? value[0] : value === "" ? -1 : typeof value === "string" ? Infinity : value);

  const build = (place) => {
    place.replaceChildren();
    const data = JSON.parse(document.getElementById(place.dataset.source).textContent);
    const rows = unpacked(data);
    const texts = rows.map((row) =>
      [row.key, ...row.values.filter((_, number) => !isNumber(data.columns[number].kind))].join(" ").toLowerCase(),
    );
    const state = { group: null, order: null, down: true, choices: new Map(), shown: PIECE };

    const tools = element("div", undefined, place);
    tools.className = "tools";
    const control = (name, label) => {
      const box = element("div", undefined, tools);
      const words = element("label", label, box);
      const made = element(name, undefined, box);
      made.id = words.htmlFor = `${place.id}-control-${tools.childElementCount}`;
      return made;
    };
    const search = control("input", "Search for words, for instance: layers.7. attn");
    search.type = "search";

    data.columns.forEach((column, number) => {
      if (column.kind !== "choice") return;
      const words = [...new Set(rows.map((row) => row.values[number]))].sort();
      if (words.length < 2) return;
      const select = control("select", column.name);
      element("option", "all", select).value = "";
      for (const word of words) element("option", word, select).value = word;
      select.addEventListener("change", () => {
        state.choices.set(number, select.value);
        refresh();
      });
    });

    const groupButton = element("button", "", tools);
    groupButton.type = "button";
    groupButton.addEventListener("click", () => {
      state.group = null;
      refresh();
      search.focus();
    });

    const status = element("p", "", place);
    status.setAttribute("role", "status");
    const wide = element("div", undefined, place);
    wide.className = "wide";
    wide.tabIndex = 0;
    wide.setAttribute("role", "group");
    wide.setAttribute("aria-label", `List of ${data.what}`);
    const table = element("table", undefined, wide);
    const head = element("tr", undefined, element("thead", undefined, table));
    const body = element("tbody", undefined, table);
    const more = element("button", "Show more", place);
    more.type = "button";
    more.className = "more";
    more.addEventListener("click", () => {
      state.shown += 5 * PIECE;
      refresh(true);
      if (more.hidden) wide.focus();
    });

    const valueOf = (row, number) => (number < 0 ? row.key : row.values[number]);
    const kindOf = (number) => (number < 0 ? "text" : data.columns[number].kind);
    const headers = [];
    [{ name: "Tensor" }, ...data.columns].forEach((column, place) => {
      const number = place - 1;
      const cell = element("th", undefined, head);
      cell.scope = "col";
      if (isNumber(kindOf(number))) cell.className = "r";
      headers.push(cell);
      const button = element("button", column.name, cell);
      button.type = "button";
      button.addEventListener("click", () => {
        state.down = state.order === number ? !state.down : isNumber(kindOf(number));
        state.order = number;
        refresh();
      });
    });

    const chosen = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = [];
      rows.forEach((row, place) => {
        if (state.group !== null && row.group !== state.group) return;
        for (const [number, word] of state.choices) if (word && row.values[number] !== word) return;
        if (words.every((word) => texts[place].includes(word))) found.push(row);
      });
      if (state.order !== null) {
        const sign = state.down ? -1 : 1;
        const compare = isNumber(kindOf(state.order))
          ? (a, b) => rank(valueOf(a, state.order)) - rank(valueOf(b, state.order)) || 0
          : (a, b) => valueOf(a, state.order).localeCompare(valueOf(b, state.order), "en", { numeric: true });
        found.sort((a, b) => sign * compare(a, b));
      }
      return found;
    };

    const refresh = (keeps = false) => {
      if (!keeps) state.shown = PIECE;
      const found = chosen();
      headers.forEach((cell, place) => {
        if (state.order === place - 1) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        else cell.removeAttribute("aria-sort");
      });
      groupButton.hidden = state.group === null;
      groupButton.textContent = state.group === null ? "" : `Only ${data.groups[state.group][0]}: show all groups`;
      const some = found.slice(0, state.shown);
      const fresh = document.createDocumentFragment();
      for (const row of some) {
        const line = element("tr", undefined, fresh);
        const name = element("th", undefined, line);
        breakable(row.key, name);
        name.scope = "row";
        name.className = "key";
        row.values.forEach((value, number) => {
          const cell = element("td", undefined, line);
          if (isNumber(kindOf(number))) cell.textContent = shown(value, kindOf(number));
          else breakable(value, cell);
          if (isNumber(kindOf(number))) cell.className = "r";
          if (kindOf(number) === "text") cell.className = "words";
        });
      }
      body.replaceChildren(fresh);
      const total = found.length.toLocaleString("en");
      status.textContent = `${total} of ${rows.length.toLocaleString("en")} ${data.what}` +
        (some.length < found.length ? `, the first ${some.length} are listed` : "");
      more.hidden = some.length === found.length;
    };

    search.addEventListener("input", () => refresh());
    refresh();
    return (group) => {
      state.group = group;
      refresh();
      tools.scrollIntoView({ block: "start" });
      search.focus({ preventScroll: true });
    };
  };

  const lists = new Map();
  for (const place of document.querySelectorAll(".tensor-list")) lists.set(place.id, build(place));
  for (const cell of document.querySelectorAll(".for-script")) cell.hidden = false;
  for (const button of document.querySelectorAll("button[data-list]")) {
    button.addEventListener("click", () => lists.get(button.dataset.list)(Number(button.dataset.group)));
  }
})();
