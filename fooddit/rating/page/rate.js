// One picture after the other: levels by keys or taps, boxes, skip, undo. Nothing is lost where the server is away.
"use strict";

const $ = (id) => document.getElementById(id);
const state = { language: "en", project: null, standard: null, asked: null, levels: {}, active: 0, boxes: null,
  started: 0, done: 0, busy: false };
const words = () => WORDS[state.language];
const text = (both) => both[state.language];

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The token comes in the link's fragment, which is sent to no server, and leaves the address bar at once.
function token() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("token");
}

async function ask(path, body) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const options = body === undefined ? { headers } : {
    method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const answer = await fetch(path, options);
  const said = await answer.json().catch(() => ({ error: answer.statusText }));
  if (!answer.ok) throw Object.assign(new Error(said.error), { status: answer.status });
  return said;
}

function subs() {
  return state.standard.criteria.flatMap((criterion) => criterion.subs);
}

function toast(said, wrong = false) {
  const shown = $("toast");
  shown.textContent = said;
  shown.classList.toggle("wrong", wrong);
  shown.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { shown.hidden = true; }, wrong ? 6000 : 2000);
}

// Waits until the server answers; what it refuses is said and given up.
async function insist(path, body) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
    try {
      return await ask(path, body);
    } catch (error) {
      if (error.status && error.status < 500) throw error;
      toast(words().lost, true);
      await new Promise((resume) => setTimeout(resume, wait));
    }
  }
}

async function start() {
  state.language = localStorage.getItem("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
  try {
    const found = await ask("/api/start");
    $("who").textContent = found.rater;
    const open = found.projects.filter((project) => project.round !== null);
    const wanted = Number(new URLSearchParams(location.search).get("project"));
    state.project = open.find((project) => project.id === wanted) ?? open[0];
    if (!state.project) return message("none");
    state.standard = (await ask(`/api/projects/${state.project.id}`)).standard;
    await resend();
    await next();
  } catch (error) {
    message(error.status === 401 ? "token" : null, error.message);
  }
}

function message(name, said) {
  $("rating").hidden = true;
  $("message").hidden = false;
  $("message").textContent = name ? words()[name] : said;
  state.asked = null;
  state.message = name;
  label();
}

async function next() {
  const found = await insist(`/api/projects/${state.project.id}/next`, {});
  state.done = found.done;
  if (!found.asked) return message("finished");
  show(found.asked);
}

function show(asked, label = null) {
  Object.assign(state, { asked, levels: { ...(label?.values.levels ?? {}) }, active: 0, started: performance.now() });
  $("message").hidden = true;
  $("rating").hidden = false;
  pictures(label?.values.boxes ?? []);
  render();
}

async function pictures(boxes) {
  const { asked } = state;
  const frames = asked.files.map((name, number) => {
    const image = element("img", { alt: asked.about.caption ?? asked.key, draggable: false });
    const frame = element("div", { className: "frame" }, image);
    fetch(`/api/projects/${state.project.id}/pictures/${asked.item}/${number}`,
      { headers: token() ? { Authorization: `Bearer ${token()}` } : {} })
      .then((answer) => (answer.ok ? answer.blob() : Promise.reject(answer)))
      .then((blob) => { image.src = URL.createObjectURL(blob); image.onload = () => URL.revokeObjectURL(image.src); })
      .catch(() => { frame.classList.add("missing"); frame.append(words().nopicture); });
    if (asked.files.length > 1) frame.addEventListener("click", () => submitPair(number));
    return frame;
  });
  $("pictures").replaceChildren(...frames);
  $("pictures").classList.toggle("pair", frames.length > 1);
  state.boxes = new Boxes(frames[0], render);
  state.boxes.items = boxes.map((box) => ({ ...box }));
}

const isPair = () => state.project.mode === "pairs";

function label() {
  const w = words();
  document.documentElement.lang = state.language;
  $("language").textContent = w.language;
  $("project").textContent = state.project?.name ?? "fooddit rate";
  const all = state.asked ? state.done + state.asked.left : state.done;
  $("progress").textContent = state.asked ? `${w.round(state.asked.round)} · ${w.of(state.done, all)}` : "";
  $("bar").style.width = `${all ? (100 * state.done) / all : 0}%`;
  $("undo").textContent = w.undo;
  $("skip").textContent = w.skip;
  $("submit").textContent = matchMedia("(hover: none), (max-width: 760px)").matches ? w.submit : w.submitKey;
  $("keys").textContent = state.project && isPair() ? w.pairKeys : w.keys;
  if (state.message && !state.asked) $("message").textContent = w[state.message];
}

function render() {
  label();
  if (!state.asked) return;
  $("caption").textContent = state.asked.about.caption ?? "";
  why();
  if (isPair()) return renderPair();
  overview();
  question();
  anomalies();
  const left = subs().filter((sub) => !(sub.id in state.levels)).length;
  $("submit").disabled = left > 0;
  $("submit").title = left ? words().missing(left) : "";
}

function why() {
  const reasons = Object.entries(state.asked.why);
  $("why").hidden = !reasons.length;
  const byId = Object.fromEntries(subs().map((sub) => [sub.id, sub]));
  const lines = reasons.filter(([id]) => byId[id]).map(([id, levels]) =>
    element("li", {}, `${text(byId[id].name)} (${words().said(levels)})`));
  const model = state.asked.kind === "model";
  $("why").replaceChildren(words()[model ? "model" : "again"], element("ul", {}, ...lines));
}

function overview() {
  const asks = new Set(Object.keys(state.asked.why));
  const groups = state.standard.criteria.map((criterion) => element("div", {},
    element("span", { textContent: text(criterion.name) }),
    ...criterion.subs.map((sub) => {
      const number = subs().indexOf(sub), level = state.levels[sub.id];
      const button = element("button", { type: "button", textContent: level ?? "·", title: text(sub.name) });
      button.setAttribute("aria-label", `${text(sub.name)}: ${level ?? "–"}`);
      button.classList.toggle("active", number === state.active);
      button.classList.toggle("given", level !== undefined);
      button.classList.toggle("asks", asks.has(sub.id));
      button.addEventListener("click", () => { state.active = number; render(); });
      return button;
    })));
  $("overview").replaceChildren(...groups);
}

function question() {
  const sub = subs()[state.active];
  const levels = Object.entries(sub.levels).reverse().map(([level, means]) => {
    const button = element("button", { type: "button" }, element("b", { textContent: level }),
      element("span", { textContent: text(means) }));
    button.classList.toggle("given", state.levels[sub.id] === Number(level));
    button.addEventListener("click", () => give(Number(level)));
    return button;
  });
  $("question").replaceChildren(element("h2", { textContent: text(sub.name) }),
    element("p", { textContent: text(sub.asks) }), element("div", { className: "levels" }, ...levels));
}

function give(level) {
  const sub = subs()[state.active];
  if (!(level in sub.levels)) return;
  state.levels[sub.id] = level;
  // On to the next one that has no level yet.
  const order = subs().map((_, i) => (state.active + 1 + i) % subs().length);
  state.active = order.find((i) => !(subs()[i].id in state.levels)) ?? state.active;
  render();
}

function anomalies() {
  const w = words(), { boxes } = state;
  const names = Object.fromEntries(state.standard.anomalies.map((anomaly) => [anomaly.id, text(anomaly.name)]));
  const [summary, body] = $("anomalies").children;
  summary.textContent = boxes.anomaly ? w.drawing(names[boxes.anomaly.id]) : `${w.anomalies} (${boxes.items.length})`;
  const kinds = state.standard.anomalies.map((anomaly) => {
    const button = element("button", { type: "button", textContent: text(anomaly.name), title: text(anomaly.means) });
    button.classList.toggle("active", boxes.anomaly?.id === anomaly.id);
    button.addEventListener("click", () => {
      boxes.anomaly = boxes.anomaly?.id === anomaly.id ? null : { id: anomaly.id, name: text(anomaly.name) };
      render();
    });
    return button;
  });
  const drawn = boxes.items.map((item, number) => {
    const note = element("input", { value: item.note, placeholder: w.note, maxLength: 500 });
    note.addEventListener("input", () => { item.note = note.value; });
    const remove = element("button", { type: "button", textContent: "×", title: w.remove });
    remove.setAttribute("aria-label", `${w.remove}: ${names[item.anomaly]}`);
    remove.addEventListener("click", () => { boxes.items.splice(number, 1); render(); });
    return element("li", {}, names[item.anomaly], note, remove);
  });
  body.replaceChildren(element("div", { className: "kinds" }, ...kinds), element("ul", {}, ...drawn));
  boxes.draw(names);
}

function renderPair() {
  const w = words();
  const choices = [["left", 0], ["tie", null], ["right", 1]].map(([name, better]) => {
    const button = element("button", { type: "button", textContent: w[name] });
    button.addEventListener("click", () => submitPair(better));
    return button;
  });
  $("question").replaceChildren(element("div", { className: "choices" }, ...choices));
  $("overview").replaceChildren();
  $("anomalies").hidden = $("submit").hidden = true;
}

// A label is in the browser's storage before it is sent, and leaves it when the server has it on its disk.
async function send(kind, values) {
  if (state.busy || !state.asked) return;
  state.busy = true;
  const { round, item } = state.asked;
  const label = { id: crypto.randomUUID?.() ?? made(), round, item, kind, values,
    seconds: (performance.now() - state.started) / 1000 };
  localStorage.setItem("unsent", JSON.stringify({ project: state.project.id, label }));
  try {
    await insist(`/api/projects/${state.project.id}/labels`, label);
    localStorage.removeItem("unsent");
    await next();
  } catch (error) {
    localStorage.removeItem("unsent");
    toast(error.message, true);
  } finally {
    state.busy = false;
  }
}

// Where a page is not served securely the browser makes no UUIDs.
function made() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function resend() {
  const unsent = JSON.parse(localStorage.getItem("unsent") ?? "null");
  if (!unsent) return;
  try {
    await insist(`/api/projects/${unsent.project}/labels`, unsent.label);
  } catch (error) {
    toast(error.message, true);
  }
  localStorage.removeItem("unsent");
}

function submit() {
  const left = subs().filter((sub) => !(sub.id in state.levels)).length;
  if (isPair()) return;
  if (left) return toast(words().missing(left), true);
  send("levels", { levels: state.levels, boxes: state.boxes.items, note: "" });
}

const submitPair = (better) => send("pair", { better, note: "" });

async function undo() {
  if (state.busy) return;
  state.busy = true;
  try {
    const found = await ask(`/api/projects/${state.project.id}/undo`, { id: crypto.randomUUID?.() ?? made() });
    state.done -= 1;
    show(found.asked, found.label);
    toast(words().undone);
  } catch (error) {
    toast(error.message, true);
  } finally {
    state.busy = false;
  }
}

function skip() {
  if (!state.asked) return;
  const dialog = $("reason"), field = $("reason-text"), [no, yes] = dialog.querySelectorAll("button");
  dialog.querySelector("label").textContent = words().reason;
  no.textContent = words().cancel;
  yes.textContent = words().skip;
  no.onclick = () => dialog.close("no");
  field.value = "";
  dialog.onclose = () => { if (dialog.returnValue === "yes" && field.value.trim()) send("skip", { reason: field.value }); };
  dialog.returnValue = "no";
  dialog.showModal();
}

function language() {
  state.language = state.language === "en" ? "zh" : "en";
  localStorage.setItem("language", state.language);
  render();
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("reason").open || event.target.tagName === "INPUT") return;
  const name = event.key.toLowerCase();
  const pair = state.asked && isPair();
  const actions = {
    u: undo, s: skip, l: language,
    enter: pair || !state.asked ? null : submit,
    escape: () => { if (state.boxes) { state.boxes.anomaly = null; render(); } },
    arrowup: pair ? null : () => move(-1), arrowdown: pair ? null : () => move(1),
    arrowleft: pair ? () => submitPair(0) : null, arrowright: pair ? () => submitPair(1) : null,
    0: pair ? () => submitPair(null) : null,
  };
  const digit = !pair && /^[1-9]$/.test(name) && state.asked ? () => give(Number(name)) : null;
  const action = digit ?? actions[name];
  // Enter on a button is that button's.
  if (!action || (name === "enter" && event.target.tagName === "BUTTON" && event.target.id !== "submit")) return;
  event.preventDefault();
  action();
}

function move(by) {
  state.active = (state.active + by + subs().length) % subs().length;
  render();
}

$("undo").addEventListener("click", undo);
$("skip").addEventListener("click", skip);
$("submit").addEventListener("click", submit);
$("language").addEventListener("click", language);
document.addEventListener("keydown", key);
start();
