/* The review panel. Hand-written, no build step; the App's globals: React, __fop__ (plugins), __foo__ (operators).
 *
 * Decisions are shown at once and saved in order, one at a time; what the server has not confirmed stays in
 * localStorage and is sent again until it is, so neither a reload nor a dead server loses a decision.
 */
(function () {
  "use strict";
  const h = React.createElement;
  const NAME = "ahp_review";
  const AHEAD = 12; // candidates kept ready in front of the reviewer
  const KEPT = 40; // candidates kept behind, for the arrows and undo
  const SIZE = 640; // px of labels
  const REASONS = ["occluded", "truncated", "not_a_person", "group", "bad_mask", "too_small", "other"];
  const REASON_TEXT = ["occluded", "cut off", "no person", "group", "bad mask", "too small", "other"];
  const MODES = ["outline", "cutout", "parsing", "plain"];
  const VERDICTS = { discard: "D", preserve: "P", refine: "R" };
  const VIEWS = [
    ["todo", "To do"], ["disagreed", "Disagreements to settle"], ["mine", "Mine, newest first"],
    ["discard", "Discarded"], ["preserve", "Preserved"], ["refine", "To refine"], ["provisional", "Provisional"],
  ];
  const COMPOSING = [["edit", "Compose: pick and move"], ["vote", "Compose: vote"]];
  const PARTS = [
    "background", "hat", "hair", "glove", "sunglasses", "upper clothes", "dress", "coat", "socks", "trousers",
    "jumpsuit", "scarf", "skirt", "face", "left arm", "right arm", "left leg", "right leg", "left shoe", "right shoe",
  ];
  const COLOURS = [
    "#000000", "#e6194b", "#8a5a2b", "#911eb4", "#46f0f0", "#f58231", "#f032e6", "#d2f53c", "#aaffc3", "#4363d8",
    "#808000", "#fabebe", "#e6beff", "#ffe119", "#3cb44b", "#a0e8a0", "#0082c8", "#7fc8ff", "#ff9e80", "#ffd0b0",
  ];

  /* ---------- state: one object for the page's life; React only shows it ---------- */
  const S = {
    view: "todo", mode: "outline", overlay: true, reason: "", items: [], pos: 0, history: [], saves: [], saving: false,
    failed: "", refused: [], progress: null, loading: false, empty: false, problem: "", guide: null, shownAt: 0,
    fetched: new Set(), generation: 0, correcting: "", canvas: null, compose: null, listeners: new Set(), lastAt: 0,
  };
  const changed = () => S.listeners.forEach((f) => f());
  const current = () => S.items[S.pos];

  async function call(operator, params, limit) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), limit || 20000);
    try {
      const base = (window.__fou__ && window.__fou__.getAPI && window.__fou__.getAPI()) || "";
      const answer = await fetch(base + "/operators/execute", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ operator_uri: "@ahp/review/" + operator, params: params }),
        signal: stop.signal,
      });
      if (!answer.ok) throw new Error("the server answered " + answer.status);
      const body = await answer.json();
      if (body.error) throw new Error(body.error_message || lastLine(body.error));
      return body.result;
    } finally {
      clearTimeout(timer);
    }
  }
  const lastLine = (text) => String(text).trim().split("\n").pop();

  /* ---------- saving ---------- */
  const store = () => S.progress && "ahp-review:" + S.progress.session;
  function keep() {
    if (store()) localStorage.setItem(store(), JSON.stringify(S.saves));
  }
  function save(op) {
    S.saves.push(op);
    keep();
    flush();
  }
  async function flush() {
    if (S.saving) return;
    S.saving = true;
    let pause = 300;
    while (S.saves.length) {
      const op = S.saves[0];
      try {
        const answer = await call("decide", op);
        if (answer.refused) S.refused.push(op.candidate_id + ": " + answer.refused);
        else {
          S.progress = answer.progress;
          const item = S.items.find((i) => i.id === op.candidate_id);
          if (item && !S.saves.slice(1).some((o) => o.candidate_id === op.candidate_id)) {
            if (answer.item) renew(item, answer.item);
            item.mine = answer.mine;
          }
        }
        S.saves.shift();
        keep();
        S.failed = "";
        pause = 300;
        changed();
        again();
      } catch (e) {
        S.failed = e.name === "AbortError" ? "no answer" : e.message;
        changed();
        await new Promise((done) => setTimeout(done, pause));
        pause = Math.min(4000, pause * 2);
      }
    }
    S.saving = false;
    changed();
  }

  /* ---------- fetching ---------- */
  function again() { // a mask that somebody proposed or corrected meanwhile comes after all else
    if (S.view !== "todo" || S.compose || !S.empty || current() || !S.progress || !S.progress.left) return;
    S.empty = false;
    more();
  }
  function held() { // decided ones come again with a new mask; passed-over ones only at the end
    if (S.view !== "todo") return [...S.fetched];
    const unsent = new Set(S.saves.map((o) => o.candidate_id));
    return S.items.filter((i, n) => n >= S.pos || unsent.has(i.id) || (current() && !i.decided)).map((i) => i.id);
  }
  function add(item) {
    const old = S.items.findIndex((i) => i.id === item.id);
    if (old >= S.pos) return;
    if (old >= 0) { S.items.splice(old, 1); S.pos--; }
    prepare(item);
    S.items.push(item);
  }
  async function more() {
    if (S.loading || S.empty || S.items.length - S.pos > AHEAD) return;
    S.loading = true;
    const generation = S.generation;
    const first = S.fetched.size === 0;
    try {
      const answer = await call("queue", { view: S.view, seen: held(), n: first ? 3 : 6, back: first && S.view === "todo" ? 3 : 0 });
      if (generation !== S.generation) return;
      if (answer.refused) throw new Error(answer.refused);
      S.progress = answer.progress;
      S.problem = "";
      if (first && S.view === "todo") {
        if (resume()) { S.loading = false; return; }
        for (const item of answer.recent) { item.decided = true; prepare(item); S.items.push(item); S.history.push({ id: item.id }); }
        S.pos = S.items.length;
      }
      const had = current();
      for (const item of answer.items) { S.fetched.add(item.id); add(item); }
      S.empty = answer.items.length === 0;
      if (!had && current()) shown();
    } catch (e) {
      if (generation === S.generation) {
        S.problem = e.name === "AbortError" ? "the server does not answer" : e.message;
        setTimeout(() => { if (generation === S.generation) { S.loading = false; more(); } }, 1500);
        changed();
        return;
      }
    } finally {
      if (generation === S.generation && !S.problem) S.loading = false;
    }
    changed();
    more();
  }
  function resume() { // decisions that a reload or a crash left unconfirmed go first
    const text = localStorage.getItem(store());
    const left = text ? JSON.parse(text) : [];
    const known = new Set(S.saves.map((o) => o.at));
    const lost = left.filter((o) => !known.has(o.at));
    if (!lost.length) return false;
    S.saves = lost.concat(S.saves);
    flush().then(() => open(S.view));
    return true;
  }
  function open(view) {
    S.generation++;
    S.compose = null;
    Object.assign(S, { view, items: [], pos: 0, history: [], fetched: new Set(), empty: false, loading: false, problem: "", reason: "" });
    draw();
    changed();
    more();
  }

  /* ---------- pictures ---------- */
  async function load(uri) {
    const image = new Image();
    image.src = uri;
    await image.decode();
    return image;
  }
  function renew(item, now) { // with another mask: no decision until that one is shown
    Object.assign(item, { values: null, picture: null, decided: false }, now);
    prepare(item);
    if (item === current()) shown();
  }
  function prepare(item) {
    const layers = (item.layers = {});
    item.ready = Promise.all([item.photo ? load(item.photo) : null, load(item.label)]).then(([photo, label]) => {
      if (item.layers !== layers) return; // another mask has come meanwhile
      item.picture = photo;
      const c = new OffscreenCanvas(SIZE, SIZE).getContext("2d", { willReadFrequently: true });
      c.drawImage(label, 0, 0);
      const rgba = c.getImageData(0, 0, SIZE, SIZE).data;
      item.values = new Uint8Array(SIZE * SIZE);
      for (let i = 0; i < item.values.length; i++) item.values[i] = rgba[4 * i];
      item.parts = [...new Set(item.values)].filter((v) => v > 0 && v < 20).sort((a, b) => a - b);
      layer(item, S.mode);
      if (item === current()) draw();
    });
    item.ready.catch((e) => { item.problem = "the picture cannot be shown: " + e.message; if (item === current()) changed(); });
  }
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const PALETTE = COLOURS.map(rgb);
  function layer(item, mode) {
    if (!item.values || mode === "plain") return null;
    if (item.layers[mode]) return item.layers[mode];
    const canvas = new OffscreenCanvas(SIZE, SIZE);
    const c = canvas.getContext("2d");
    const out = c.createImageData(SIZE, SIZE);
    const px = new Uint32Array(out.data.buffer);
    const v = item.values;
    if (mode === "cutout") checker(px, v);
    if (mode === "parsing") for (let i = 0; i < v.length; i++) if (v[i]) px[i] = tint(v[i]);
    if (mode !== "cutout") contour(px, v, mode === "parsing" ? 0xffffffff : 0xfffff000);
    c.putImageData(out, 0, 0);
    return (item.layers[mode] = canvas);
  }
  const tint = (v) => { const [r, g, b] = v < 20 ? PALETTE[v] : [235, 235, 235]; return ((165 << 24) | (b << 16) | (g << 8) | r) >>> 0; };
  function checker(px, v) {
    for (let y = 0, i = 0; y < SIZE; y++)
      for (let x = 0; x < SIZE; x++, i++) if (!v[i]) px[i] = ((x >> 4) ^ (y >> 4)) & 1 ? 0xff756d66 : 0xff686059;
  }
  function contour(px, v, colour) { // two px inside in colour, two outside in black: readable on any photo
    const last = SIZE - 1;
    for (let y = 0, i = 0; y < SIZE; y++)
      for (let x = 0; x < SIZE; x++, i++) {
        const inside = v[i] > 0;
        const edge =
          inside !== (v[x > 1 ? i - 2 : i] > 0) || inside !== (v[x < last - 1 ? i + 2 : i] > 0) ||
          inside !== (v[y > 1 ? i - 2 * SIZE : i] > 0) || inside !== (v[y < last - 1 ? i + 2 * SIZE : i] > 0);
        if (edge) px[i] = inside ? colour : 0xc0000000;
      }
  }
  function draw() {
    const canvas = S.canvas;
    if (!canvas) return;
    const side = Math.max(64, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const c = canvas.getContext("2d");
    const item = current();
    c.fillStyle = "#101216";
    c.fillRect(0, 0, side, side);
    const made = S.compose && S.compose.item;
    if (S.compose) {
      if (made && made.picture) c.drawImage(made.picture, 0, 0, side, side);
    } else if (item && item.values) {
      c.imageSmoothingQuality = "high";
      if (item.picture) c.drawImage(item.picture, 0, 0, side, side);
      const over = S.overlay ? layer(item, S.mode) : null;
      if (over) c.drawImage(over, 0, 0, side, side);
    }
    canvas.dataset.id = S.compose ? (made && made.picture ? made.id : "") : item && item.values ? item.id : "";
    canvas.dataset.mode = S.compose ? S.compose.mode : S.overlay ? S.mode : "plain";
  }
  function shown() {
    S.shownAt = performance.now();
    S.reason = "";
    S.correcting = "";
    draw();
  }

  /* ---------- what the reviewer does ---------- */
  function stamp() {
    S.lastAt = Math.max(Date.now(), S.lastAt + 1); // no two decisions of a page carry one time
    return new Date(S.lastAt).toISOString();
  }
  function decide(verdict, reason) {
    const item = current();
    if (!item || !item.values) return;
    const why = verdict === "preserve" ? "" : reason || S.reason;
    const seconds = (performance.now() - S.shownAt) / 1000;
    S.history.push({ id: item.id, before: item.mine });
    item.mine = { verdict, reason: why };
    item.decided = true; // on this mask; the decision that it came with may be on another
    save({ candidate_id: item.id, verdict, reason: why, seconds, at: stamp(), settle: S.view === "disagreed", mask_digest: item.mask_digest });
    step(1);
  }
  function undo() {
    const last = S.history.pop();
    if (!last) return;
    const index = S.items.findIndex((i) => i.id === last.id);
    save({ candidate_id: last.id, verdict: "", at: stamp(), mask_digest: index < 0 ? "" : S.items[index].mask_digest });
    if (index < 0) return open(S.view);
    S.items[index].mine = last.before || null;
    S.items[index].decided = false;
    S.pos = index;
    shown();
    changed();
  }
  function step(by) {
    const to = S.pos + by;
    if (to < 0 || to > S.items.length || (by > 0 && !current())) return;
    S.pos = to;
    const extra = S.pos - KEPT;
    if (extra > 0) { S.items.splice(0, extra); S.pos -= extra; }
    shown();
    changed();
    again();
    more();
  }
  function mode(name) {
    S.mode = name;
    S.overlay = true;
    draw();
    changed();
    for (const item of S.items.slice(S.pos, S.pos + 3)) layer(item, name);
  }
  async function guide() {
    if (S.guide !== null) S.guide = null;
    else {
      S.guide = "";
      changed();
      try { S.guide = (await call("guide", {})).html; } catch (e) { S.guide = "<p>The guide cannot be read: " + e.message + "</p>"; }
    }
    changed();
  }
  async function correct() {
    const item = current();
    if (!item) return;
    try {
      const answer = await call("find", { candidate_id: item.id });
      if (answer.refused) throw new Error(answer.refused);
      S.correcting = item.id;
      window.__foo__.executeOperator("open_sample", { id: answer.sample });
    } catch (e) { S.problem = e.message; }
    changed();
  }
  async function corrected() {
    const item = current();
    try {
      const answer = await call("corrected", { candidate_id: item.id });
      if (answer.refused) throw new Error(answer.refused);
      if (answer.same) S.problem = "nothing has been painted on this candidate yet";
      else {
        S.history.push({ id: item.id, before: item.mine });
        renew(item, answer.item);
        S.correcting = "";
        S.problem = "";
      }
    } catch (e) { S.problem = e.message; }
    changed();
  }

  /* ---------- composing the real test set: every action waits for the server ---------- */
  async function composing(mode) {
    const C = (S.compose = { mode, item: null, left: 0, passed: 0, dx: 0, dy: 0, scale: 1, busy: true, last: S.compose ? S.compose.last : "", looks: 0 });
    S.generation++;
    S.problem = "";
    changed();
    try {
      const answer = await call("compose", { do: "queue", mode });
      if (answer.refused) throw new Error(answer.refused);
      Object.assign(C, { left: answer.left, passed: answer.passed });
      await show(C, answer.items[0]);
    } catch (e) { S.problem = e.message; }
    C.busy = false;
    draw();
    changed();
  }
  async function show(C, item) {
    if (item && item.photo) item.picture = await load(item.photo);
    C.item = item || null;
    if (item && item.problem) S.problem = item.problem;
  }
  async function nudge(dx, dy, scale) {
    const C = S.compose;
    if (!C.item || C.mode !== "edit") return;
    C.dx += dx; C.dy += dy; C.scale *= scale;
    const look = ++C.looks;
    try {
      const answer = await call("compose", { do: "look", proposal_id: C.item.id, dx: C.dx, dy: C.dy, scale: C.scale });
      if (answer.refused) throw new Error(answer.refused);
      if (look === C.looks && S.compose === C) await show(C, answer);
      S.problem = "";
    } catch (e) { S.problem = e.message; }
    draw();
    changed();
  }
  async function act(action) {
    const C = S.compose;
    const id = action === "undo" ? C.last : C.item && C.item.id;
    if (!id || C.busy) return;
    C.busy = true;
    changed();
    const moved = C.dx || C.dy || C.scale !== 1;
    const op = action === "pick" && moved ? { action: "nudge", dx: C.dx, dy: C.dy, scale: C.scale } : { action };
    try {
      const answer = await call("compose", { do: "act", proposal_id: id, version: action === "undo" ? "" : C.mode === "vote" ? C.item.version : C.item.made, ...op });
      if (answer.refused) throw new Error(answer.refused);
      C.last = action === "undo" ? "" : id;
      await composing(C.mode);
    } catch (e) { S.problem = "NOT saved: " + e.message; C.busy = false; changed(); }
  }
  function composeKey(e) {
    const by = e.shiftKey ? 20 : 4;
    const edit = { arrowleft: () => nudge(-by, 0, 1), arrowright: () => nudge(by, 0, 1), arrowup: () => nudge(0, -by, 1), arrowdown: () => nudge(0, by, 1),
      "+": () => nudge(0, 0, 1.05), "=": () => nudge(0, 0, 1.05), "-": () => nudge(0, 0, 1 / 1.05), enter: () => act("pick"), x: () => act("reject"), u: () => act("undo"), g: guide };
    const vote = { p: () => act("pass"), d: () => act("fail"), u: () => act("undo"), g: guide };
    return (S.compose.mode === "edit" ? edit : vote)[e.key.toLowerCase()];
  }

  function onKey(e) {
    if (e.ctrlKey || e.metaKey || e.altKey || !S.canvas || !S.canvas.isConnected || !S.canvas.offsetParent) return;
    const t = e.target;
    if (t && (["INPUT", "TEXTAREA", "SELECT"].includes(t.tagName) || t.isContentEditable)) return;
    if (document.querySelector('[data-cy="modal"]')) return;
    const action = actionOf(e);
    if (!action) return;
    e.preventDefault();
    e.stopImmediatePropagation();
    if (!e.repeat || (S.compose && e.key.startsWith("Arrow"))) action();
  }
  function actionOf(e) {
    if (S.guide !== null) return e.key === "Escape" || e.key.toLowerCase() === "g" ? guide : null;
    if (S.compose) return composeKey(e);
    const digit = /^(?:Digit|Numpad)([1-7])$/.exec(e.code);
    if (digit) {
      const reason = REASONS[digit[1] - 1];
      return e.shiftKey ? () => decide("discard", reason) : () => { S.reason = S.reason === reason ? "" : reason; changed(); };
    }
    const actions = {
      d: () => decide("discard"), p: () => decide("preserve"), r: () => decide("refine"), u: undo, g: guide,
      arrowleft: () => step(-1), arrowright: () => step(1), m: nextMode, tab: nextMode,
      " ": () => { S.overlay = !S.overlay; draw(); changed(); },
    };
    return actions[e.key.toLowerCase()];
  }
  const nextMode = () => mode(MODES[(MODES.indexOf(S.mode) + 1) % MODES.length]);

  /* ---------- what it looks like ---------- */
  const CSS = `
.ahp{position:relative;width:100%;height:100%;display:flex;background:#16181d;color:#e8eaed;font:14px/1.45 system-ui,"Segoe UI",sans-serif;overflow:hidden}
.ahp *{box-sizing:border-box}
.ahp-stage{flex:1;min-width:0;display:flex;align-items:center;justify-content:center;padding:14px;position:relative;container-type:size}
.ahp-frame{position:relative;width:min(100cqw,100cqh);height:min(100cqw,100cqh)}
.ahp-frame canvas{width:100%;height:100%;display:block;border-radius:10px;background:#101216}
.ahp-note{position:absolute;inset:0;display:flex;align-items:center;justify-content:center;text-align:center;font-size:18px;color:#9aa0a6;padding:2rem}
.ahp-badge{position:absolute;top:12px;left:12px;padding:4px 12px;border-radius:99px;font-weight:600;color:#fff;box-shadow:0 1px 6px #0008}
.ahp-tag{position:absolute;bottom:12px;left:12px;padding:3px 10px;border-radius:6px;background:#000a;color:#dfe3e8;font-size:12px}
.ahp-side{width:330px;flex:none;height:100%;overflow:auto;padding:14px 18px;border-left:1px solid #2b2f37;display:flex;flex-direction:column;gap:13px;background:#1b1e24}
.ahp-row{display:flex;align-items:center;justify-content:space-between;gap:8px}
.ahp-bar{height:8px;border-radius:4px;background:#2b2f37;overflow:hidden;display:flex}.ahp-bar i{display:block;height:100%}
.ahp-dim{color:#9aa0a6}.ahp-small{font-size:12px}.ahp b{font-variant-numeric:tabular-nums}
.ahp button,.ahp select{font:inherit;color:inherit;background:#2a2e36;border:1px solid #3a3f48;border-radius:8px;padding:6px 10px;cursor:pointer}
.ahp button:hover{background:#343943}.ahp button:focus-visible{outline:2px solid #8ab4f8}
.ahp-verdicts{display:grid;grid-template-columns:1fr 1fr 1fr;gap:8px}
.ahp-verdicts button{padding:12px 4px;font-weight:600;display:flex;flex-direction:column;align-items:center;gap:5px;color:#fff}
.ahp .discard{background:#b3362c;border-color:#b3362c}.ahp .preserve{background:#1e8a4a;border-color:#1e8a4a}.ahp .refine{background:#a86a00;border-color:#a86a00}
.ahp button.discard:hover{background:#c9453a}.ahp button.preserve:hover{background:#25a058}.ahp button.refine:hover{background:#c07c08}
.ahp kbd{font:600 11px ui-monospace,monospace;padding:1px 6px;border-radius:4px;background:#0006;border:1px solid #fff3}
.ahp-chips{display:grid;grid-template-columns:1fr 1fr;gap:6px}.ahp-chips button{text-align:left;padding:4px 8px;font-size:13px}
.ahp .on{border-color:#8ab4f8;background:#28405f}
.ahp-modes{display:grid;grid-template-columns:repeat(4,1fr)}.ahp-modes button{border-radius:0;padding:5px 2px;font-size:13px}
.ahp-modes button:first-child{border-radius:8px 0 0 8px}.ahp-modes button:last-child{border-radius:0 8px 8px 0}
.ahp-facts{display:grid;grid-template-columns:auto 1fr;gap:2px 12px;font-size:12.5px;margin:0}.ahp-facts dt{color:#9aa0a6}.ahp-facts dd{margin:0;text-align:right;overflow-wrap:anywhere}
.ahp-warn{color:#ffb74d}.ahp-bad{background:#8c1d18;color:#fff;border-radius:8px;padding:8px 10px}.ahp-ok{color:#81c995}
.ahp-decision{display:flex;align-items:center;gap:8px;padding:6px 10px;border-radius:8px;background:#23272e}
.ahp-decision span:first-child{width:84px;text-align:center;border-radius:99px;color:#fff;font-size:12px;font-weight:600;padding:1px 0}
.ahp-legend{display:flex;flex-wrap:wrap;gap:4px 10px;font-size:12px}.ahp-legend i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:5px}
.ahp-guide{position:absolute;inset:14px;background:#16181d;border:1px solid #3a3f48;border-radius:12px;overflow:hidden;display:flex;flex-direction:column;z-index:5}
.ahp-guide iframe{flex:1;border:0;width:100%}.ahp-guide .ahp-row{padding:8px 14px;border-bottom:1px solid #2b2f37}`;

  const el = (cls, ...children) => h("div", { className: cls }, ...children);
  const key = (text) => h("kbd", null, text);
  const button = (label, onClick, cls, title) =>
    h("button", { type: "button", className: cls || "", title, onClick: (e) => { e.currentTarget.blur(); onClick(); } }, label);
  const percent = (v) => Math.round(100 * v) + " %";
  function duration(s) {
    if (s < 90) return Math.round(s) + " s";
    if (s < 5400) return Math.round(s / 60) + " min";
    return (s / 3600).toFixed(s < 36000 ? 1 : 0) + " h";
  }

  function Progress() {
    const p = S.progress;
    if (!p) return el("ahp-dim", "Loading …");
    const share = (v) => (p.total ? (100 * (p.counts[v] || 0)) / p.total : 0) + "%";
    const bar = Object.keys(VERDICTS).map((v) => h("i", { key: v, className: v, style: { width: share(v) } }));
    return el("", 
      el("ahp-row", h("b", null, p.reviewer), h("span", { className: "ahp-dim" }, h("b", { "data-cy": "ahp-done" }, p.done), " of " + p.total)),
      h("div", { className: "ahp-bar", style: { margin: "7px 0" } }, ...bar),
      el("ahp-row ahp-small",
        h("span", { className: "ahp-dim" }, (p.pace === null ? "–" : p.pace.toFixed(2)) + " s/sample"),
        h("span", { className: "ahp-dim" }, p.left + " left" + (p.eta ? " · " + duration(p.eta) : ""))));
  }

  function Saved() {
    const n = S.saves.length;
    if (S.failed) return h("div", { className: "ahp-bad", role: "alert", "data-cy": "ahp-save", "data-state": "failed" },
      "NOT saved: " + S.failed + ". Trying again; " + n + (n === 1 ? " decision waits" : " decisions wait") + ", none is lost.");
    const state = n ? "saving" : "saved";
    return h("div", { className: n ? "ahp-dim ahp-small" : "ahp-ok ahp-small", "data-cy": "ahp-save", "data-state": state },
      n ? "saving …" : "✓ saved");
  }

  function Facts(item) {
    const f = item.facts;
    const warn = (text, bad) => (bad ? h("span", { className: "ahp-warn" }, text) : text);
    const rows = [
      ["rule", item.ruled ? item.ruled.verdict + (item.ruled.reason ? ", " + item.ruled.reason : "") : ""],
      ["triage", item.score === null ? "" : item.score.toFixed(3)],
      ["flags", f.flags.length ? warn(f.flags.join(", "), true) : ""],
      ["neighbours", f.neighbours ? warn(f.neighbours + " boxes, over " + percent(f.box_cover), f.box_cover > 0.25) : "none"],
      ["contact", f.mask_contact === null ? "" : warn(percent(f.mask_contact) + " of the outline", f.mask_contact > 0.05)],
      ["crowd", f.crowd ? warn("a crowd region touches", true) : ""],
      ["border", f.border_touch ? warn(f.border_touch + " px", true) : ""],
      ["person", f.person], ["mask", f.mask], ["parsing", f.parsing], ["photo", f.source + ", " + f.photo], ["id", item.id],
    ].filter((r) => r[1] !== "");
    return h("dl", { className: "ahp-facts" }, ...rows.flatMap(([k, v]) => [h("dt", { key: k }, k), h("dd", { key: k + "=" }, v)]));
  }

  function Decisions(item) {
    return el("", el("ahp-dim ahp-small", "Who decided what"),
      ...item.decisions.map((w) => h("div", { key: w.reviewer, className: "ahp-decision", style: { marginTop: 6 } },
        h("span", { className: w.verdict }, w.verdict), h("b", null, w.reviewer),
        h("span", { className: "ahp-dim" }, w.reason.replaceAll("_", " ")))));
  }

  function Select() {
    const pick = (e) => { const v = e.target.value; e.target.blur(); if (v === "edit" || v === "vote") composing(v); else open(v); };
    return h("select", { value: S.compose ? S.compose.mode : S.view, "data-cy": "ahp-view", onChange: pick },
      ...VIEWS.map(([v, text]) => h("option", { key: v, value: v },
        v === "disagreed" && S.progress ? text + " (" + S.progress.disagreed + ")" : text)),
      ...COMPOSING.map(([v, text]) => h("option", { key: v, value: v }, text)));
  }
  function ComposeSide() {
    const C = S.compose;
    const facts = C.item ? Object.entries(C.item.facts) : [];
    const buttons = C.mode === "edit"
      ? [button(["Pick", h("kbd", { key: "k" }, "Enter")], () => act("pick"), "preserve"), button(["Reject", h("kbd", { key: "k" }, "X")], () => act("reject"), "discard")]
      : [button(["Pass", h("kbd", { key: "k" }, "P")], () => act("pass"), "preserve"), button(["Fail", h("kbd", { key: "k" }, "D")], () => act("fail"), "discard")];
    return el("ahp-side",
      el("ahp-row", h("b", null, "The real test set"), h("span", { className: "ahp-dim" }, C.left + " left · " + C.passed + " passed")),
      S.problem ? el("ahp-bad", S.problem) : h("div", { className: C.busy ? "ahp-dim ahp-small" : "ahp-ok ahp-small", "data-cy": "ahp-save", "data-state": C.busy ? "saving" : "saved" }, C.busy ? "saving …" : "✓ saved"),
      Select(),
      h("div", { className: "ahp-verdicts", style: { gridTemplateColumns: "1fr 1fr" } }, ...buttons),
      button([h("kbd", { key: "k" }, "U"), " undo"], () => act("undo")),
      h("dl", { className: "ahp-facts" }, ...facts.flatMap(([k, v]) => [h("dt", { key: k }, k), h("dd", { key: k + "=" }, v)])),
      el("ahp-dim ahp-small", C.mode === "edit"
        ? "Could this have been photographed? The object must stand on the ground in front of the person, at a believable size and light."
        : "Pass only what you would take for a photo. One Fail is enough to leave it out."),
      h("div", { style: { flex: 1 } }),
      C.mode === "edit" ? h("div", { className: "ahp-dim ahp-small" }, key("←"), " ", key("↑"), " ", key("↓"), " ", key("→"), " move, with ", key("Shift"), " further  ", key("+"), " ", key("−"), " size") : null);
  }

  function Side() {
    if (S.compose) return ComposeSide();
    const item = current();
    return el("ahp-side",
      Progress(), Saved(),
      S.refused.length ? el("ahp-bad", "Refused: " + S.refused[S.refused.length - 1]) : null,
      S.progress && S.progress.database === "away" ? el("ahp-warn ahp-small", "The database is away. Decisions are safe on disk and reach it when it is back.") : null,
      S.progress && S.progress.trouble ? el("ahp-warn ahp-small", "Your decisions are saved. Others' cannot all be read: " + S.progress.trouble) : null,
      S.problem ? el("ahp-warn ahp-small", S.problem) : null,
      Select(),
      item && S.view === "disagreed" ? Decisions(item) : null,
      el("ahp-verdicts", ...Object.keys(VERDICTS).map((v) => button([v[0].toUpperCase() + v.slice(1), h("kbd", { key: "k" }, VERDICTS[v])], () => decide(v), v))),
      el("ahp-chips", ...REASONS.map((r, i) => button([h("kbd", { key: "k" }, i + 1), " " + REASON_TEXT[i]], () => { S.reason = S.reason === r ? "" : r; changed(); }, S.reason === r ? "on" : "", "reason of the next Discard or Refine; with Shift: discard for it at once")),
        button([h("kbd", { key: "k" }, "U"), " undo"], undo)),
      el("ahp-modes", ...MODES.map((m) => button(m, () => mode(m), S.mode === m ? "on" : ""))),
      item && S.mode === "parsing" && item.parts ? h("div", { className: "ahp-legend" },
        ...(item.parts.length ? item.parts.map((v) => h("span", { key: v }, h("i", { style: { background: COLOURS[v] } }), PARTS[v])) : [h("span", { key: 0, className: "ahp-dim" }, "no body parts are known")])) : null,
      item ? Facts(item) : null,
      h("div", { style: { flex: 1 } }),
      el("ahp-row", button(["Guide ", h("kbd", { key: "k" }, "G")], guide),
        S.correcting ? button("Take painted mask", corrected) : button("Correct mask", correct, "", "paint the mask in the App's own editor (Annotate)")),
      h("div", { className: "ahp-dim ahp-small" }, key("Space"), " overlay  ", key("M"), " mode  ", key("←"), " ", key("→"), " back, on  ", key("Shift"), "+", key("1–7"), " discard for it"));
  }

  function Panel() {
    const [, force] = React.useReducer((n) => n + 1, 0);
    const canvas = React.useRef(null);
    React.useEffect(() => {
      S.listeners.add(force);
      S.canvas = canvas.current;
      const resized = new ResizeObserver(draw);
      resized.observe(canvas.current);
      if (!S.items.length) more();
      draw();
      return () => { S.listeners.delete(force); resized.disconnect(); if (S.canvas === canvas.current) S.canvas = null; };
    }, []);
    const item = S.compose ? S.compose.item && { id: S.compose.item.id } : current();
    const waiting = S.compose ? (S.compose.busy ? "Loading …" : "Nothing is left here.") : S.problem || (S.empty ? "Nothing is left in this view." : "Loading …");
    return el("ahp", h("style", null, CSS),
      el("ahp-stage", el("ahp-frame",
        h("canvas", { ref: canvas, "data-cy": "ahp-canvas" }),
        !item ? el("ahp-note", waiting) : item.problem ? el("ahp-note", item.problem) : null,
        item && item.mine ? h("span", { className: "ahp-badge " + item.mine.verdict }, "you: " + item.mine.verdict + (item.mine.reason ? " · " + item.mine.reason.replaceAll("_", " ") : "")) : null,
        item && !S.compose ? h("span", { className: "ahp-tag" }, (S.overlay ? S.mode : "overlay off") + (S.reason ? " · reason: " + S.reason.replaceAll("_", " ") : "")) : null)),
      Side(),
      S.guide === null ? null : el("ahp-guide",
        el("ahp-row", h("b", null, "Reviewers' guide"), button(["Close ", h("kbd", { key: "k" }, "Esc")], guide)),
        h("iframe", { srcDoc: S.guide, sandbox: "", title: "Guide" })));
  }

  localStorage.setItem("fiftyone-enterprise-tooltip-seen", "true"); // else an advertisement covers the panel
  if (window.__ahpReviewKeys) document.removeEventListener("keydown", window.__ahpReviewKeys, true);
  window.__ahpReviewKeys = onKey;
  document.addEventListener("keydown", onKey, true);
  window.addEventListener("beforeunload", (e) => { if (S.saves.length) { keep(); flush(); if (S.failed) e.preventDefault(); } });
  window.__fop__.registerComponent({
    name: NAME, label: "Review", component: Panel, type: window.__fop__.PluginComponentType.Panel,
    activator: () => true, panelOptions: { surfaces: "grid", priority: 1 },
  });
})();
