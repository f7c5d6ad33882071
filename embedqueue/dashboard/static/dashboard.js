// Keeps the numbers fresh while somebody looks. Without it the pages work, too: "Reload" does the same.
"use strict";
(() => {
  const main = document.getElementById("main");
  const all = document.getElementById("all");
  if (all) {
    const boxes = document.querySelectorAll("#letters input[name=id]");
    all.parentElement.hidden = false;
    all.addEventListener("change", () => { for (const box of boxes) box.checked = all.checked; });
    document.getElementById("letters").addEventListener("change", (event) => {
      if (event.target === all) return;
      const checked = [...boxes].filter((box) => box.checked).length;
      all.checked = checked === boxes.length;
      all.indeterminate = checked > 0 && checked < boxes.length;
    });
  }
  if (!main.dataset.liveUrl) return;

  const hold = document.getElementById("hold");
  const stale = document.getElementById("stale");
  const every = Number(main.dataset.lookMs);
  let held = false;
  let asking = null;
  let timer = null;

  function swap(fresh) {
    if (!document.getElementById("flow-title") && fresh.getElementById("flow-title")) {
      location.reload(); // Redis is back
      return;
    }
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = fresh.querySelector(`[data-live="${old.dataset.live}"]`);
      if (now && !old.isEqualNode(now) && !old.contains(document.activeElement)) {
        old.replaceWith(document.importNode(now, true));
      }
    }
  }

  function later() {
    clearTimeout(timer);
    if (!held && !document.hidden) timer = setTimeout(look, every);
  }

  function look() {
    asking = new XMLHttpRequest();
    asking.open("GET", main.dataset.liveUrl);
    asking.responseType = "document"; // parsed, and nothing in it runs
    asking.timeout = 15000;
    asking.onload = () => {
      const fresh = asking.responseXML;
      if (fresh && fresh.querySelector("[data-live=status]")) {
        swap(fresh);
        stale.textContent = "";
      } else {
        stale.textContent = "Not fresh: the page could not be asked for.";
      }
    };
    asking.onerror = asking.ontimeout = () => { stale.textContent = "Not fresh: the dashboard does not answer."; };
    asking.onloadend = () => { asking = null; later(); };
    asking.send();
  }

  hold.hidden = false;
  document.querySelector(".reload").hidden = true;
  hold.addEventListener("click", () => {
    held = !held;
    hold.setAttribute("aria-pressed", String(held));
    hold.textContent = held ? "Resume updates" : "Pause updates";
    if (held && asking) { asking.abort(); }
    later();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !held && !asking) look(); });
  later();
})();
