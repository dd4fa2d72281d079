// The page without this file is whole: links and a form. This keeps it up to date: it asks for a
// stream of the parts that change, and puts each in its place.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  let address = document.body.dataset.address || "?";
  let frozen = document.body.dataset.frozen === "yes";
  let stream = null, retry = 0, only = null, said = "";

  const params = (at) => new URLSearchParams(at.replace(/^\?/, ""));
  const streamOf = (at) => { const q = params(at); q.set("format", "stream"); q.delete("now"); return "?" + q; };

  // While a button of the pointer is down nothing is replaced: its click would be lost.
  let pressed = false, pending = [];
  document.addEventListener("pointerdown", () => { pressed = true; }, true);
  for (const up of ["pointerup", "pointercancel"]) document.addEventListener(up, () => {
    pressed = false;
    setTimeout(() => { const all = pending; pending = []; for (const parts of all) show(parts); });
  }, true);

  // selected tells whether somebody has selected text in a part, and is about to copy it.
  function selected(part) {
    const selection = getSelection();
    return selection && !selection.isCollapsed && part.contains(selection.anchorNode);
  }

  // put replaces the inside of a part. What has the focus keeps it, and what was scrolled stays.
  function put(name, html) {
    const part = byId(name);
    if (!part) return;
    const active = document.activeElement;
    const inside = part.contains(active);
    if (inside && active.tagName === "INPUT" || selected(part)) return; // somebody types, or copies
    const key = inside ? active.dataset.key : "";
    const lefts = [...part.querySelectorAll(".scroll, pre")].map((e) => [e.scrollLeft, e.scrollTop]);
    if (name === "sentences" || name === "who") part.style.minHeight = part.offsetHeight + "px"; // what is below does not jump
    part.innerHTML = html;
    [...part.querySelectorAll(".scroll, pre")].forEach((e, i) => { if (lefts[i]) [e.scrollLeft, e.scrollTop] = lefts[i]; });
    if (key) {
      const again = [...part.querySelectorAll("[data-key]")].find((e) => e.dataset.key === key);
      if (again) again.focus({ preventScroll: true });
    }
  }

  // say has a screen reader tell how the pool is when that changes, and not when only its figures do.
  function say() {
    const state = document.querySelector(".pool .state"), text = document.querySelector(".pool .sentence");
    if (!text) return;
    document.title = state.textContent.trim().split(" ")[0] + " " + document.querySelector(".pool .name").textContent + " – sqllease";
    const now = state.textContent + text.textContent.replace(/[\d.,]+( (µs|ms|s|min|h|d)\b)?/g, "#");
    if (now !== said && said !== "") byId("said").textContent = text.textContent;
    said = now;
  }

  function show(parts) {
    if (pressed) { pending.push(parts); return; }
    for (const [name, html] of Object.entries(parts)) if (!only || only.includes(name)) put(name, html);
    say();
    hideTipOfGone();
  }

  function state(is) {
    document.body.classList.toggle("islive", is === "live");
    document.body.classList.toggle("lost", is === "lost");
    document.body.dataset.state = is;
    const live = document.querySelector(".live");
    if (live) live.textContent = is === "live" ? "live" : is === "lost" ? "no answer since" : "as of";
  }

  function close() { if (stream) stream.close(); stream = null; clearTimeout(retry); }

  function open() {
    close();
    if (document.hidden) return;
    stream = new EventSource(streamOf(address));
    stream.addEventListener("step", (e) => { show(JSON.parse(e.data)); state(frozen ? "frozen" : "live"); });
    stream.addEventListener("frozen", () => { close(); state("frozen"); });
    stream.onerror = () => { // it asks again by itself, unless the answer was none
      if (stream.readyState === EventSource.CLOSED) { close(); state("lost"); retry = setTimeout(open, 3000); }
      else { clearTimeout(retry); retry = setTimeout(() => state("lost"), 5000); }
    };
    stream.onopen = () => clearTimeout(retry);
  }

  // go leads to another address of the page. Who freezes the page keeps what the tables say.
  function go(to, push) {
    const was = params(address), next = params(to);
    const same = (key) => (was.get(key) || "") === (next.get(key) || "");
    const kept = ["pool", "place", "sort_out", "sort_places", "sort_connections"].every(same);
    const until = next.has("until");
    only = until && kept && (!frozen || same("until")) ? ["head", "tools", "picture", "pin"] : null;
    frozen = until;
    const jumps = next.get("lease") !== was.get("lease") || next.has("at");
    address = to;
    if (push) history.pushState(null, "", to);
    open();
    if (jumps && stream) stream.addEventListener("step", () => {
      const pin = document.querySelector(".pin");
      if (pin && pin.getBoundingClientRect().bottom > innerHeight) pin.scrollIntoView({ block: "nearest" });
    }, { once: true });
  }

  const own = (a) => a && (a.getAttribute("href") || "").startsWith("?") && !a.getAttribute("href").includes("format=");

  document.addEventListener("click", (e) => {
    if (e.ctrlKey || e.metaKey || e.shiftKey || e.button) return;
    const a = e.target.closest("a[href]");
    if (own(a)) {
      e.preventDefault();
      hideTip();
      if (a.dataset.look) { fetch(a.getAttribute("href"), { headers: { Accept: "text/html" } }).then(() => open(), () => state("lost")); return; }
      go(a.getAttribute("href"), true);
      return;
    }
    const plot = e.target.closest(".plot");
    if (plot && !a) point(plot, e);
  });

  // point asks for the checkout at a place of the picture, where many are drawn together.
  function point(plot, e) {
    const box = plot.getBoundingClientRect(), tracks = plot.dataset.tracks.split(";");
    const track = tracks[Math.floor((e.clientY - box.top - plot.dataset.top) / plot.dataset.pitch)];
    if (!track || e.clientY - box.top < plot.dataset.top) return;
    const stays = track.trim().split(" ").map((s) => s.split(":")), then = timeAt(plot, e);
    const connection = (stays.findLast((s) => +s[1] <= then) || stays[0])[0];
    const q = params(address);
    q.delete("lease");
    q.set("at", connection + "." + Math.round(then));
    go("?" + q, true);
  }

  function timeAt(plot, e) {
    const box = plot.getBoundingClientRect(), from = +plot.dataset.from, to = +plot.dataset.to;
    return from + (to - from) * Math.min(1, Math.max(0, (e.clientX - box.left) / box.width));
  }

  document.addEventListener("submit", (e) => {
    if (e.target.method !== "get") return;
    e.preventDefault();
    const q = new URLSearchParams(new FormData(e.target));
    if (!q.get("place")) q.delete("place");
    const lease = params(address).get("lease");
    if (lease) q.set("lease", lease);
    if (document.activeElement) document.activeElement.blur();
    go("?" + q, true);
  });

  // The wheel with Ctrl, or a pinch, zooms. While frozen, the time under the pointer stays where it is.
  let turned = 0;
  document.addEventListener("wheel", (e) => {
    const plot = e.target.closest(".plot");
    if (!plot || !(e.ctrlKey || e.altKey)) return;
    e.preventDefault();
    turned += e.deltaY;
    if (Math.abs(turned) < 40) return;
    const a = byId(turned < 0 ? "zoomin" : "zoomout");
    turned = 0;
    if (!a) return;
    const q = params(a.getAttribute("href"));
    if (frozen) {
      const from = +plot.dataset.from, to = +plot.dataset.to, at = timeAt(plot, e);
      const spans = { s: 1000, m: 60000 }, text = q.get("span") || "2m";
      const span = parseFloat(text) * spans[text.slice(-1)];
      q.set("until", Math.round(at + (1 - (at - from) / (to - from)) * span));
    }
    go("?" + q, true);
  }, { passive: false });

  // The text of a bar or a mark, at once and where the pointer is.
  const tip = byId("tip");
  let over = null;
  function hideTip() { tip.hidden = true; over = null; }
  function hideTipOfGone() { if (over && !document.contains(over)) hideTip(); }
  function textOf(of) {
    const title = of.querySelector("title");
    if (title) { of.dataset.tip = title.textContent; of.setAttribute("aria-label", title.textContent); title.remove(); } // the browser's own comes late
    return of.dataset.tip || "";
  }
  function showTip(of, x, y) {
    const text = textOf(of);
    if (!text) return;
    over = of;
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - box.width - 4)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 18) + "px";
  }
  const described = (e) => e.target.closest && e.target.closest(".plot a, .plot text");
  document.addEventListener("pointermove", (e) => { const of = described(e); if (of) showTip(of, e.clientX, e.clientY); else if (over) hideTip(); });
  document.addEventListener("focusin", (e) => {
    const of = described(e);
    if (!of) { hideTip(); return; }
    const box = of.getBoundingClientRect();
    showTip(of, box.left, box.bottom);
  });
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") hideTip();
    if (e.key === " " && own(document.activeElement)) { e.preventDefault(); document.activeElement.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true })); }
  });

  window.addEventListener("resize", () => { for (const id of ["sentences", "who"]) byId(id).style.minHeight = ""; });
  window.addEventListener("popstate", () => { frozen = true; go(location.search || "?", false); });
  document.addEventListener("visibilitychange", () => { if (document.hidden) close(); else if (!frozen) open(); });
  window.addEventListener("pagehide", close);
  say();
  if (frozen) state("frozen"); else open();
})();
