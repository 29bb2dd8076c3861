// What the page gains by a script: one view at a time, search, and the lineage lit up. Without it everything is there, one
// after the other. Text of the page is only ever set as text.
"use strict";
(() => {
  const root = document.documentElement;
  const main = document.getElementById("main");
  const views = [...document.querySelectorAll(".view")];
  const side = document.querySelector(".side");
  const search = document.getElementById("search");
  const results = document.getElementById("results");
  const found = results.querySelector(".found");
  const title = document.title;
  root.classList.add("script");

  // --- one view at a time

  function target() {
    return document.getElementById(location.hash.slice(1)) || views[0];
  }

  function show(isFirst) {
    const wanted = target();
    const isAll = wanted.id === "everything";
    const view = wanted.closest(".view") || views[0];
    for (const other of views) {
      // the browser's own search still finds what is hidden, and tells
      if (isAll || other === view) other.removeAttribute("hidden");
      else other.setAttribute("hidden", "until-found");
    }
    for (const link of side.querySelectorAll("li a[aria-current]")) link.removeAttribute("aria-current");
    for (const link of side.querySelectorAll(`li a[href="#${CSS.escape(view.id)}"], li a[href="#${CSS.escape(wanted.id)}"]`)) {
      link.setAttribute("aria-current", "page");
      if (isFirst) link.scrollIntoView({ block: "nearest" });
    }
    document.title = view === views[0] ? title : `${view.dataset.name} · ${title}`;
    document.getElementById("menu").checked = false;
    if (isAll || wanted === view) window.scrollTo(0, 0);
    else wanted.scrollIntoView();
    // who does not see the page is told where they are
    if (!isFirst) view.querySelector("h2").focus({ preventScroll: true });
  }

  window.addEventListener("hashchange", () => show(false));
  for (const view of views) {
    // what the browser's search has found; a link into the view is told of here too, and knows where it leads
    view.addEventListener("beforematch", () => {
      if (!view.contains(target())) history.replaceState(null, "", `#${view.id}`);
    });
  }

  // --- search

  const KINDS = { table: 0, page: 1, serving: 2, question: 2, column: 3 };
  const MOST = 50;
  let index;

  function entries() {
    index ||= [...document.querySelectorAll("[data-find]")].map((element) => {
      const name = element.dataset.name;
      const told = element.matches("tr")
        ? element.querySelector(".prose")
        : element.querySelector(".lead, h3");
      const about = told ? told.textContent.trim() : "";
      return { id: element.id, name, about, kind: element.dataset.find, low: name.toLowerCase(), text: about.toLowerCase() };
    });
    return index;
  }

  // lower is better; undefined is no match
  function rank(entry, words) {
    let worst = 0;
    for (const word of words) {
      const at = entry.low.indexOf(word);
      const part = at === 0 || (at > 0 && "._".includes(entry.low[at - 1])) ? 0 : at > 0 ? 1 : entry.text.includes(word) ? 2 : -1;
      if (part < 0) return undefined;
      worst = Math.max(worst, part);
    }
    return worst * 10 + KINDS[entry.kind];
  }

  function find() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    side.classList.toggle("searching", words.length > 0);
    results.hidden = words.length === 0;
    found.replaceChildren();
    if (words.length === 0) return;
    const hits = entries()
      .map((entry) => ({ entry, rank: rank(entry, words) }))
      .filter((hit) => hit.rank !== undefined)
      .sort((a, b) => a.rank - b.rank || a.entry.name.localeCompare(b.entry.name));
    for (const { entry } of hits.slice(0, MOST)) {
      const link = document.createElement("a");
      link.href = `#${entry.id}`;
      link.textContent = entry.name;
      const about = document.createElement("small");
      about.textContent = entry.about ? `${entry.kind}: ${entry.about}` : entry.kind;
      link.append(about);
      const item = document.createElement("li");
      item.append(link);
      found.append(item);
    }
    const shown = hits.length > MOST ? `, the first ${MOST} shown` : "";
    document.getElementById("found").textContent = `${hits.length} found${shown}`;
  }

  function leave() {
    search.value = "";
    find();
  }

  search.addEventListener("input", find);
  found.addEventListener("click", leave);
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input:not([type=checkbox]), textarea");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && search.value) {
      leave();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !results.hidden) {
      const links = [...found.querySelectorAll("a")];
      const at = links.indexOf(document.activeElement);
      if (at < 0 && document.activeElement !== search) return;
      event.preventDefault();
      const next = at + (event.key === "ArrowDown" ? 1 : -1);
      (next < 0 ? search : links[Math.min(next, links.length - 1)])?.focus();
    } else if (event.key === "Enter" && event.target === search) {
      found.querySelector("a")?.click();
    }
  });

  // --- lineage

  for (const picture of document.querySelectorAll(".lineage")) {
    const edges = [...picture.querySelectorAll(".edge")];
    const nodes = [...picture.querySelectorAll(".node")];

    function reach(start, from, to) {
      const seen = new Set([start]);
      const lit = new Set();
      for (const node of seen) {
        for (const edge of edges) {
          if (edge.dataset[from] === node) {
            lit.add(edge);
            seen.add(edge.dataset[to]);
          }
        }
      }
      return [seen, lit];
    }

    function light(name) {
      const [down, ways] = reach(name, "from", "to");
      const [up, more] = reach(name, "to", "from");
      picture.classList.add("lit");
      for (const node of nodes) {
        node.classList.toggle("on", down.has(node.dataset.node) || up.has(node.dataset.node));
      }
      for (const edge of edges) edge.classList.toggle("on", ways.has(edge) || more.has(edge));
    }

    const off = () => picture.classList.remove("lit");
    for (const node of nodes) {
      for (const kind of ["pointerenter", "focus"]) node.addEventListener(kind, () => light(node.dataset.node));
      for (const kind of ["pointerleave", "blur"]) node.addEventListener(kind, off);
    }
  }

  show(true);
})();
