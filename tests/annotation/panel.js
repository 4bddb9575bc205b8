// The panel's script without a browser: its globals are stubs, its timers fire on command, and every
// request waits for an answer. Usage: node panel.js SCENARIO; prints what came of it as JSON.
const fs = require("fs"), path = require("path"), vm = require("vm");
const SOURCE = path.join(__dirname, "../../annotation/plugin/dist/index.umd.js");
const PROGRESS = { session: "ann@/r", reviewer: "ann", total: 9, done: 0, left: 9, pace: null, eta: null, counts: {}, disagreed: 0, database: "", trouble: "" };
const item = (id) => ({ id, photo: "x", label: "y", mask_digest: "0123456789abcdef", facts: { flags: [] }, score: null, ruled: null, mine: null, decisions: [] });
const turn = async () => { for (let i = 0; i < 20; i++) await new Promise((done) => setImmediate(done)); };

function panel(storage) {
  const asked = [], timers = [], handlers = {}, gate = { wait: null };
  let component;
  const c2d = { fillRect() {}, drawImage() {}, putImageData() {}, getImageData: (x, y, w, h) => ({ data: new Uint8ClampedArray(4 * w * h) }), createImageData: (w, h) => ({ data: new Uint8ClampedArray(4 * w * h) }) };
  const canvas = { isConnected: true, offsetParent: {}, clientWidth: 64, dataset: {}, getContext: () => c2d };
  const window = { __fop__: { registerComponent: (c) => { component = c.component; }, PluginComponentType: { Panel: 1 } }, __foo__: {}, addEventListener() {}, devicePixelRatio: 1 };
  const sandbox = {
    window, performance, AbortController, console,
    document: { addEventListener: (name, f) => { handlers[name] = f; }, removeEventListener() {}, querySelector: () => null },
    setTimeout: (f, ms) => timers.push({ f, ms }), clearTimeout: (n) => { timers[n - 1].f = () => {}; },
    React: { createElement: (type, props, ...children) => (typeof type === "function" ? type(props) : { props, children }), useReducer: () => [0, () => {}], useRef: () => ({ current: canvas }), useEffect: (f) => f() },
    Image: class { async decode() { await gate.wait; } }, OffscreenCanvas: class { getContext() { return c2d; } },
    ResizeObserver: class { observe() {} disconnect() {} },
    localStorage: { getItem: (k) => storage.get(k) ?? null, setItem: (k, v) => storage.set(k, v) },
    fetch: (url, o) => new Promise((done, fail) => {
      const body = JSON.parse(o.body);
      asked.push({ operator: body.operator_uri.split("/").pop(), params: body.params, fail: () => fail(new Error("net")), answer: (body) => done({ ok: true, json: async () => body }) });
    }),
  };
  vm.createContext(sandbox);
  vm.runInContext(fs.readFileSync(SOURCE, "utf8").replace("const changed = ()", "window.inside = () => ({ S, open, inside: { corrected } }); const changed = ()"), sandbox);
  const look = () => JSON.stringify(component({}));
  look();
  const key = (k) => handlers.keydown({ key: k, code: "Key" + k.toUpperCase(), target: null, preventDefault() {}, stopImmediatePropagation() {} });
  const fire = (ms) => { const due = timers.filter((t) => t.ms === ms); for (const t of due) { const f = t.f; t.f = () => {}; f(); } };
  const next = async (operator) => { await turn(); const i = asked.findIndex((a) => a.operator === operator); return i < 0 ? null : asked.splice(i, 1)[0]; };
  return { key, fire, next, look, gate, ...window.inside() };
}
async function fill(p, prefix) { // answers the view's requests until nothing more is asked
  for (let n = 0, q; (q = await p.next("queue")); ) {
    const items = Array.from({ length: q.params.n }, () => item(prefix + n++)).filter((i) => n < 20);
    q.answer({ result: { items, recent: [], progress: PROGRESS } });
  }
}
const kept = (storage) => JSON.parse(storage.get("ahp-review:ann@/r") || "[]").map((w) => w.candidate_id);

const SCENARIOS = {
  async error() { // FiftyOne's answer where the operator raised
    const storage = new Map(), p = panel(storage), logged = [];
    await fill(p, "c");
    for (let i = 0; i < 3; i++) p.key("d");
    (await p.next("decide")).answer({ result: null, error: "Traceback", error_message: "the log cannot be written" });
    await turn();
    const seen = { kept: kept(storage), named: p.look().includes("the log cannot be written") };
    p.fire(300);
    for (let q; (q = await p.next("decide")); ) { logged.push(q.params.candidate_id); q.answer({ result: { mine: null, progress: PROGRESS } }); }
    return { ...seen, logged, left: kept(storage), refused: p.S.refused };
  },
  async refused() {
    const storage = new Map(), p = panel(storage);
    await fill(p, "c");
    p.key("d"); p.key("d");
    (await p.next("decide")).answer({ result: { refused: "no such verdict" } });
    (await p.next("decide")).answer({ result: { mine: null, progress: { ...PROGRESS, trouble: "bob.jsonl, line 3" } } });
    await turn();
    return { left: kept(storage), refused: p.S.refused, named: p.look().includes("bob.jsonl, line 3") };
  },
  async corrected() { // corrected, taken back: no decision before the mask from before is shown again
    const p = panel(new Map()), sent = [];
    const decide = async (result) => { const q = await p.next("decide"); sent.push([q.params.candidate_id, q.params.verdict, q.params.mask_digest[0]]); q.answer({ result: { progress: PROGRESS, ...result } }); await turn(); };
    await fill(p, "c");
    p.key("r"); await decide({ mine: { verdict: "refine", reason: "", note: "" } });
    p.key("arrowleft");
    p.inside.corrected();
    (await p.next("corrected")).answer({ result: { item: { ...item("c0"), mask_digest: "f".repeat(16), mine: { verdict: "refine", reason: "bad_mask", note: "corrected" } } } });
    await turn();
    p.key("u"); p.key("p"); // the second while the answer is out: of the mask that is still shown
    await decide({ mine: { verdict: "refine", reason: "", note: "" }, item: item("c0") });
    await decide({ mine: { verdict: "preserve", reason: "", note: "" } });
    let open;
    p.gate.wait = new Promise((done) => { open = done; }); // the picture takes its time
    p.key("u"); await decide({ mine: { verdict: "refine", reason: "", note: "" }, item: item("c0") });
    p.key("p"); const early = await p.next("decide");
    open(); await turn();
    p.key("p"); await decide({ mine: { verdict: "preserve", reason: "", note: "" } });
    p.key("u"); p.key("u"); await decide({ mine: null }); await decide({ mine: null });
    return { sent, early };
  },
  async reopened() { // nothing is left; then a decided one has a new mask, and one was passed over
    const p = panel(new Map()), seen = [];
    const queue = async (...ids) => { const q = await p.next("queue"); seen.push(q.params.seen); q.answer({ result: { items: ids.map(item), recent: [], progress: PROGRESS } }); await turn(); };
    const decide = async (left) => (await p.next("decide")).answer({ result: { mine: { verdict: "discard", reason: "", note: "" }, progress: { ...PROGRESS, left } } });
    await queue("a", "b", "c"); await queue();
    p.key("d"); await decide(2); await turn();
    p.key("arrowright");
    p.key("d"); await decide(2);
    await queue("b", "a");
    const ids = p.S.items.map((i) => i.id), at = p.S.pos;
    await queue();
    p.key("d"); await decide(1); await turn(); p.key("d"); await decide(0); await queue();
    return { seen, ids, at, sent: await p.next("queue") };
  },
  async passed() { // candidates with a new mask and an old decision are passed over: others come, and they not before the end
    const p = panel(new Map()), seen = [];
    const old = (id) => ({ ...item(id), mine: { verdict: "discard", reason: "", note: "" } });
    const queue = async (...items) => { const q = await p.next("queue"); seen.push(q.params.seen); q.answer({ result: { items, recent: [], progress: PROGRESS } }); await turn(); };
    await queue(old("r"), old("s"), item("a"));
    await queue(item("b"));
    p.key("arrowright"); await turn(); await queue(item("c"));
    p.key("arrowright"); await turn(); await queue(item("d"));
    return { seen, ids: p.S.items.map((i) => i.id) };
  },
  async retry() { // a fetch fails, the view is changed before it is tried again
    const p = panel(new Map());
    (await p.next("queue")).fail();
    await turn();
    p.open("mine");
    const first = await p.next("queue");
    p.fire(1500);
    const second = await p.next("queue");
    for (const q of [first, second]) if (q) q.answer({ result: { items: [item("a"), item("b")], recent: [], progress: PROGRESS } });
    await turn();
    return { twice: second !== null, ids: p.S.items.map((i) => i.id) };
  },
};
SCENARIOS[process.argv[2]]().then((found) => { console.log(JSON.stringify(found)); process.exit(0); });
