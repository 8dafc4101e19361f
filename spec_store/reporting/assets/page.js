"use strict";
(() => {
  const state = JSON.parse(document.getElementById("state").textContent);
  const status = document.querySelector(".status");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const MOST_ROWS = 48;

  // Copying: the clipboard where the browser grants it, else the selection.
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      area.setAttribute("readonly", "");
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  let clearing = 0;
  function say(text) {
    status.textContent = text;
    clearTimeout(clearing);
    clearing = setTimeout(() => { status.textContent = ""; }, 5000);
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    const text = button.parentElement.querySelector("code").textContent;
    say((await copy(text)) ? "Copied." : "This browser does not allow copying: select the text instead.");
    button.focus();
  });

  const select = document.getElementById("by");
  if (select) {
    select.addEventListener("change", () => {
      for (const table of document.querySelectorAll("[data-shares]")) {
        table.hidden = table.dataset.shares !== select.value;
      }
    });
  }

  // What is folded away is printed, too.
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const part of opened) part.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const part of opened) part.open = false;
  });

  const canvases = [...document.querySelectorAll("canvas[data-map]")];
  if (!canvases.length) {
    document.documentElement.dataset.ready = "true";
    return;
  }

  const n = state.rows.length;
  const colours = new Map(state.clusters.map((c) => [c.number, c.colour]));
  const picked = document.getElementById("picked");
  const rows = document.getElementById("picked-rows");
  const sql = picked.parentElement.querySelector(".sql");
  const clear = document.querySelector(".chip.clear");
  const chips = [...document.querySelectorAll(".chip[data-cluster]")];
  let selected = null; // a Set of rows, or null for none
  let brush = null; // {map, x0, y0, x1, y1} in units of the grid
  const MARGIN = 0.04;

  function place(map, i, size) {
    const xy = state.maps[map].xy;
    const inner = size * (1 - 2 * MARGIN);
    return [
      size * MARGIN + (xy[2 * i] / state.grid) * inner,
      size * MARGIN + (1 - xy[2 * i + 1] / state.grid) * inner,
    ];
  }

  function draw() {
    const css = getComputedStyle(document.documentElement);
    const grey = css.getPropertyValue("--point").trim();
    const ink = css.getPropertyValue("--ink").trim();
    const accent = css.getPropertyValue("--accent").trim();
    for (const canvas of canvases) {
      const map = Number(canvas.dataset.map);
      const size = canvas.clientWidth;
      const ratio = Math.max(window.devicePixelRatio || 1, 1);
      canvas.width = canvas.height = Math.round(size * ratio);
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      const radius = Math.max(1.6, Math.min(3.2, size / 160)) * (n > 1000 ? 1 : 1.3);
      const order = [...Array(n).keys()].sort((i, j) => {
        const above = (k) => (selected && selected.has(k) ? 2 : 0) + (state.first[k] !== null ? 1 : 0);
        return above(i) - above(j);
      });
      for (const i of order) {
        const [x, y] = place(map, i, size);
        const isPicked = selected && selected.has(i);
        pen.globalAlpha = selected ? (isPicked ? 1 : 0.18) : state.first[i] !== null ? 0.85 : 0.4;
        pen.fillStyle = colours.get(state.first[i]) || grey;
        pen.beginPath();
        pen.arc(x, y, isPicked ? radius * 1.35 : radius, 0, 2 * Math.PI);
        pen.fill();
        if (isPicked) {
          pen.strokeStyle = ink;
          pen.lineWidth = 0.8;
          pen.stroke();
        }
      }
      pen.globalAlpha = 1;
      if (brush && brush.map === map) {
        pen.strokeStyle = accent;
        pen.lineWidth = 1.5;
        pen.setLineDash([5, 3]);
        pen.strokeRect(
          Math.min(brush.x0, brush.x1) * size,
          Math.min(brush.y0, brush.y1) * size,
          Math.abs(brush.x1 - brush.x0) * size,
          Math.abs(brush.y1 - brush.y0) * size,
        );
      }
    }
    document.documentElement.dataset.ready = "true";
  }

  function within(box) {
    const [left, right] = [Math.min(box.x0, box.x1), Math.max(box.x0, box.x1)];
    const [top, bottom] = [Math.min(box.y0, box.y1), Math.max(box.y0, box.y1)];
    const found = new Set();
    for (let i = 0; i < n; i++) {
      const [x, y] = place(box.map, i, 1);
      if (x >= left && x <= right && y >= top && y <= bottom) found.add(i);
    }
    return found;
  }

  function element(name, text, kind) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function picture(value) {
    const image = element("img", undefined, value.pixelated ? "pixelated" : "");
    image.src = state.pictures[value.picture];
    image.alt = value.text;
    return image;
  }

  const isPicture = (value) => typeof value !== "string";

  function tile(i) {
    const [key, ...values] = state.rows[i];
    const figure = element("figure", undefined, "row");
    const caption = element("figcaption");
    figure.append(...values.filter(isPicture).map(picture), caption);
    caption.append(element("span", key, "key"));
    caption.append(...values.filter((v) => !isPicture(v)).map((v) => element("span", v)));
    if (state.members[i].length) caption.append(element("span", `in ${state.members[i].join(", ")}`));
    return figure;
  }

  function line(i) {
    const [key, ...values] = state.rows[i];
    const row = element("tr");
    const head = element("th", key, "key");
    head.scope = "row";
    const cells = values.map((value) => {
      const cell = element("td", isPicture(value) ? undefined : value);
      if (isPicture(value)) cell.append(picture(value));
      return cell;
    });
    row.append(head, element("td", state.members[i].join(", ")), ...cells);
    return row;
  }

  function listed(found) {
    if (state.tiles) {
      const box = element("div", undefined, "rows");
      box.append(...found.map(tile));
      return box;
    }
    const [key, ...others] = state.columns;
    const table = element("table", undefined, "lines");
    const head = table.createTHead().insertRow();
    for (const name of [key, "clusters", ...others]) {
      const cell = element("th", name);
      cell.scope = "col";
      head.append(cell);
    }
    table.createTBody().append(...found.map(line));
    const box = element("div", undefined, "scroll");
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Selected rows");
    box.append(table);
    return box;
  }

  function filterOf(found) {
    if (!state.filter) return "";
    return `${state.filter.column} IN (${[...found].map((i) => state.filter.values[i]).join(", ")})`;
  }

  function show(found, filter, what) {
    selected = found && found.size ? found : null;
    clear.disabled = !selected;
    rows.replaceChildren();
    const text = selected ? filter : "";
    sql.hidden = !text;
    sql.querySelector("code").textContent = text;
    if (!selected) {
      picked.textContent = what || "Nothing is selected.";
    } else {
      const counts = new Map();
      for (const i of selected) for (const c of state.members[i]) counts.set(c, (counts.get(c) || 0) + 1);
      const most = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 3);
      const parts = most.map(([c, m]) => `${m} in cluster ${c}`).join(", ");
      const shown = selected.size > MOST_ROWS ? ` The first ${MOST_ROWS} are shown.` : "";
      const count = `${selected.size} sampled row${selected.size === 1 ? "" : "s"}`;
      picked.textContent = `${what || `${count} selected${parts ? `: ${parts}` : ""}.`}${shown}`;
      rows.append(listed([...selected].slice(0, MOST_ROWS)));
    }
    draw();
  }

  function pressed(cluster) {
    for (const chip of chips) chip.setAttribute("aria-pressed", String(chip.dataset.cluster === String(cluster)));
  }

  function brushed() {
    pressed(null);
    const found = within(brush);
    show(found, filterOf(found), found.size ? "" : "No sampled row lies there.");
  }

  function reset() {
    brush = null;
    pressed(null);
    show(null, "");
  }

  for (const chip of chips) {
    chip.addEventListener("click", () => {
      if (chip.getAttribute("aria-pressed") === "true") {
        reset();
        return;
      }
      const cluster = state.clusters.find((c) => String(c.number) === chip.dataset.cluster);
      const found = new Set();
      state.members.forEach((m, i) => { if (m.includes(cluster.number)) found.add(i); });
      brush = null;
      pressed(cluster.number);
      const said = `${found.size} sampled members of cluster ${cluster.number}; the filter selects all of them.`;
      show(found, cluster.where, found.size ? said : `No member of cluster ${cluster.number} is in the sample.`);
    });
  }
  clear.addEventListener("click", () => {
    reset();
    chips[0]?.focus();
  });

  const peek = document.createElement("div");
  peek.className = "peek";
  peek.hidden = true;
  document.body.append(peek);

  function nearest(map, x, y, reach) {
    let best = -1;
    let least = reach * reach;
    for (let i = 0; i < n; i++) {
      const [a, b] = place(map, i, 1);
      const d = (a - x) ** 2 + (b - y) ** 2;
      if (d < least) [best, least] = [i, d];
    }
    return best;
  }

  for (const canvas of canvases) {
    const map = Number(canvas.dataset.map);
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const part = (v, size) => Math.min(Math.max(v / size, 0), 1);
      return [part(event.clientX - box.left, box.width), part(event.clientY - box.top, box.height)];
    };
    let dragging = false;
    let touched = false; // clicks do not say so in every browser
    canvas.addEventListener("pointerdown", (event) => {
      touched = event.pointerType === "touch";
      if (touched || event.button !== 0) return;
      const [x, y] = at(event);
      dragging = true;
      peek.hidden = true;
      canvas.setPointerCapture(event.pointerId);
      brush = { map, x0: x, y0: y, x1: x, y1: y };
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      if (dragging) {
        [brush.x1, brush.y1] = [x, y];
        draw();
        return;
      }
      if (event.pointerType !== "mouse") return;
      const i = nearest(map, x, y, 8 / canvas.clientWidth);
      peek.hidden = i < 0;
      if (i >= 0) {
        peek.replaceChildren(tile(i));
        peek.style.left = `${Math.min(event.clientX + 14, window.innerWidth - 160)}px`;
        peek.style.top = `${Math.max(8, Math.min(event.clientY + 14, window.innerHeight - peek.offsetHeight - 8))}px`;
      }
    });
    canvas.addEventListener("pointerleave", () => { peek.hidden = true; });
    canvas.addEventListener("pointerup", () => {
      if (!dragging) return;
      dragging = false;
      if (Math.abs(brush.x1 - brush.x0) + Math.abs(brush.y1 - brush.y0) < 0.01) reset();
      else {
        const { x0, y0, x1, y1 } = brush;
        brush = { map, x0: Math.min(x0, x1), y0: Math.min(y0, y1), x1: Math.max(x0, x1), y1: Math.max(y0, y1) };
        brushed();
      }
    });
    canvas.addEventListener("click", (event) => {
      if (!touched) return; // a finger that moves scrolls the page; one that taps selects
      const [x, y] = at(event);
      brush = { map, x0: x - 0.08, y0: y - 0.08, x1: x + 0.08, y1: y + 0.08 };
      brushed();
    });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "Escape") {
        reset();
      } else if (event.key === "Enter" || event.key === " " || (step && (!brush || brush.map !== map))) {
        brush = { map, x0: 0.4, y0: 0.4, x1: 0.6, y1: 0.6 };
        brushed();
      } else if (step) {
        const [dx, dy] = step.map((s) => 0.02 * s);
        if (event.shiftKey) {
          brush.x1 = Math.min(Math.max(brush.x1 + dx, brush.x0 + 0.02), 1);
          brush.y1 = Math.min(Math.max(brush.y1 + dy, brush.y0 + 0.02), 1);
        } else if (brush.x0 + dx >= 0 && brush.x1 + dx <= 1 && brush.y0 + dy >= 0 && brush.y1 + dy <= 1) {
          brush = { map, x0: brush.x0 + dx, y0: brush.y0 + dy, x1: brush.x1 + dx, y1: brush.y1 + dy };
        }
        brushed();
      } else {
        return;
      }
      event.preventDefault();
    });
  }

  new ResizeObserver(draw).observe(canvases[0]);
  dark.addEventListener("change", draw);
  draw();
})();
