// Live lists and armed buttons. Every page works without this file.
"use strict";

// A button marked data-armed stays inert until the digits of its form are in.
function arm() {
  for (const form of document.querySelectorAll("form[data-needs-digits]")) {
    const input = form.querySelector("input[inputmode=numeric]");
    const button = form.querySelector("button[data-armed]");
    if (!input || !button) continue;
    const digits = input.value.replace(/\D/g, "").length;
    button.disabled = digits !== Number(form.dataset.needsDigits);
  }
}
document.addEventListener("input", arm);
window.addEventListener("pageshow", arm);

// A link to #register opens the folded form that it names.
function unfold() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
window.addEventListener("hashchange", unfold);
unfold();
arm();

let stale = false;
let busy = false;
let timer = 0;

const regions = () => [...document.querySelectorAll("[data-live-region]")];

// A search that the page came with is no half-written text; everything else is.
const written = (field) => ["checkbox", "radio"].includes(field.type)
  ? field.checked !== field.defaultChecked
  : field.value !== "" && (field.type !== "search" || field.value !== field.defaultValue);
const writing = () => [...document.querySelectorAll("main input:not([type=hidden]), main textarea")].some(written);

function paused(yes) {
  const line = document.getElementById("live-paused");
  if (!line || yes === line.hasChildNodes()) return;
  line.replaceChildren();
  if (!yes) return;
  const link = document.createElement("a");
  link.href = location.href;
  link.textContent = line.dataset.reload;
  line.append(line.dataset.paused, " – ", link);
}

function replace(old, fresh) {
  const folds = [...old.querySelectorAll("details")].map((fold) => fold.open);
  fresh.querySelectorAll("details").forEach((fold, i) => { fold.open = folds[i] ?? fold.open; });
  const said = fresh.dataset.said;
  if (said && said !== old.dataset.said) document.getElementById("live-said").textContent = said;
  old.replaceWith(fresh);
}

async function refresh() {
  if (busy || !stale || document.hidden || writing()) return;
  busy = true;
  stale = false;
  try {
    // Nobody reads this one: it does not keep the session alive.
    const headers = { "Pairgate-Live": "1" };
    const answer = await fetch(location.href, { headers, credentials: "same-origin", cache: "no-store", redirect: "error" });
    if (!answer.ok) throw new Error("status " + answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of regions()) {
      const fresh = page.getElementById(old.id);
      if (!fresh) throw new Error("another page");
      if (old.contains(document.activeElement) || writing()) stale = true;
      else replace(old, document.adoptNode(fresh));
    }
    arm();
  } catch {
    paused(true);
  }
  busy = false;
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(refresh, 250);
}

if (document.body.hasAttribute("data-live") && regions().length > 0) {
  const events = new EventSource("/events");
  events.addEventListener("changed", () => { stale = true; soon(); });
  events.onerror = () => paused(true);
  // What changed between the making of the page and now was told to nobody.
  events.onopen = () => { paused(false); stale = true; soon(); };
  for (const kind of ["focusout", "input", "visibilitychange"]) {
    document.addEventListener(kind, () => { if (stale) soon(); });
  }
  // A page that is being left has nothing to fetch; what it shows may be gone by then.
  for (const kind of ["submit", "pagehide"]) {
    window.addEventListener(kind, () => { events.close(); clearTimeout(timer); });
  }
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}
