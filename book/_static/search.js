// Excerpts of the search results in words: without code, formulas and buttons, and whole.
// It replaces two functions of Sphinx's searchtools.js, which take a page as one long text.
(() => {
  "use strict";
  const LENGTH = 220;
  const NO_TEXT =
    ".headerlink, script, style, button, svg, pre, table, .cell, div.math, #jb-print-docs-body, " +
    ".prev-next-footer, .opening, .sig, details.hide, .toctree-wrapper";
  const BLOCKS = "p, li, dt, dd, h1, h2, h3, h4, div, section, summary";

  const plain = (formula) => {
    const text = formula.replace(/\\\(|\\\)/g, "");
    return /\\[a-z]*(frac|sum|left|big|sqrt|hat)/i.test(text) ? "\u2026" : text.replace(/[\\{}]/g, "");
  };

  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const main = page.querySelector("article.bd-article") ?? page.querySelector("[role=main]");
    const text = (anchor && main?.querySelector(anchor)) || main;
    if (!text) return "";
    text.querySelectorAll(NO_TEXT).forEach((part) => part.remove());
    text.querySelectorAll("span.math").forEach((part) => { part.textContent = plain(part.textContent); });
    text.querySelectorAll(BLOCKS).forEach((part) => part.append(" "));
    return text.textContent.replace(/\s+/g, " ").trim();
  };

  Search.makeSearchSummary = (html, words, anchor) => {
    const title = new DOMParser().parseFromString(html, "text/html").querySelector("h1");
    const heading = (title?.firstChild?.textContent ?? "").trim();
    let text = Search.htmlToText(html, anchor);
    if (heading && text.startsWith(heading)) text = text.slice(heading.length).trim();
    if (!text) return null;
    const found = [...words]
      .map((word) => text.toLowerCase().indexOf(word.toLowerCase()))
      .filter((at) => at >= 0);
    const first = found.length ? Math.min(...found) : 0;
    // From the start of the sentence, or of a word if the sentence is long.
    const sentence = Math.max(...[". ", "? ", ": "].map((end) => text.lastIndexOf(end, first) + 2), 0);
    const near = first - sentence < LENGTH / 2;
    const from = near ? (sentence === 1 ? 0 : sentence) : text.indexOf(" ", first - LENGTH / 3) + 1;
    let to = from + LENGTH;
    if (to < text.length) to = text.lastIndexOf(" ", to);
    const summary = document.createElement("p");
    summary.className = "context";
    summary.textContent =
      (near ? "" : "\u2026 ") + text.slice(from, to) + (to < text.length ? " \u2026" : "");
    return summary;
  };

  Documentation.addTranslations({
    locale: "en",
    plural_expr: "n != 1",
    messages: {
      "Search finished, found ${resultCount} page(s) matching the search query.":
        "Results: ${resultCount}, pages and names of the package, the best match first.",
      "Your search did not match any documents. Please make sure that all words are spelled correctly and that you've selected enough categories.":
        "Nothing found. Check the spelling, or try a single word.",
    },
  });
})();
