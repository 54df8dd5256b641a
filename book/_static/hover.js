/*
 * Hover notes: a small box beside a link to a glossary term, a citation or an equation.
 *
 * The texts are in notes.js, by the address that a link points to. The box opens for the
 * mouse and for the keyboard, not for touch, where a tap follows the link. Escape closes
 * it, the pointer may move into it, and while it is open it describes its link.
 */
(function () {
  "use strict";

  const notes = window.METAREC_NOTES || {};
  const root = new URL(document.documentElement.dataset.content_root || "./", location.href);
  const OPEN_AFTER = 120;
  const CLOSE_AFTER = 250;
  const GAP = 8;

  let box = null;
  let current = null;
  let timer = 0;
  let touched = false;

  /* What a link points to, as notes.js names it; null for a link without a note. */
  function key(link) {
    const name = link.hash && link.href.startsWith(root.href) ? link.href.slice(root.href.length) : "";
    return Object.hasOwn(notes, decodeURI(name)) ? decodeURI(name) : null;
  }

  /* The link with a note that an event is about. */
  function linkOf(event) {
    const link = event.target instanceof Element ? event.target.closest("article a[href]") : null;
    return link && !link.classList.contains("headerlink") && key(link) ? link : null;
  }

  function element(name, className, text) {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  }

  /* The formula as it stands on this page, or set anew from its TeX. */
  function formula(id, tex) {
    const there = document.getElementById(id);
    const drawn = there && there.querySelector("mjx-container");
    if (drawn) {
      return drawn.cloneNode(true);
    }
    if (window.MathJax && window.MathJax.tex2svg) {
      return window.MathJax.tex2svg(tex, { display: true });
    }
    return element("code", "", tex);
  }

  function fill(link) {
    const name = key(link);
    const [title, text] = notes[name];
    const id = name.split("#")[1];
    if (id.startsWith("equation-")) {
      box.replaceChildren(formula(id, text));
    } else {
      const parts = title ? [element("strong", "hover-note__title", title)] : [];
      box.replaceChildren(...parts, element("span", "hover-note__text", text));
    }
  }

  /* Below the link, or above it where there is no room; inside the window sideways. */
  function place(link) {
    const at = link.getClientRects()[0];
    const width = document.documentElement.clientWidth;
    const left = Math.max(GAP, Math.min(at.left, width - box.offsetWidth - GAP));
    const below = at.bottom + GAP;
    const above = at.top - GAP - box.offsetHeight;
    const room = below + box.offsetHeight <= window.innerHeight || above < 0;
    box.style.left = `${left + window.scrollX}px`;
    box.style.top = `${(room ? below : above) + window.scrollY}px`;
  }

  function open(link) {
    clearTimeout(timer);
    if (current === link) {
      return;
    }
    close();
    if (!box) {
      box = element("div", "hover-note", "");
      box.id = "hover-note";
      box.setAttribute("role", "tooltip");
      box.addEventListener("pointerenter", () => clearTimeout(timer));
      box.addEventListener("pointerleave", () => later(close, CLOSE_AFTER));
      document.body.append(box);
    }
    current = link;
    box.hidden = false;
    fill(link);
    place(link);
    link.setAttribute("aria-describedby", box.id);
  }

  function close() {
    clearTimeout(timer);
    if (current) {
      current.removeAttribute("aria-describedby");
      current = null;
      box.hidden = true;
    }
  }

  function later(action, wait) {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  }

  document.addEventListener("pointerover", (event) => {
    const link = event.pointerType === "mouse" ? linkOf(event) : null;
    if (link) {
      later(() => open(link), OPEN_AFTER);
    }
  });
  document.addEventListener("pointerout", (event) => {
    const link = linkOf(event);
    if (link && !link.contains(event.relatedTarget) && document.activeElement !== link) {
      later(close, CLOSE_AFTER);
    }
  });
  document.addEventListener("pointerdown", (event) => {
    touched = event.pointerType !== "mouse";
  });
  document.addEventListener("focusin", (event) => {
    const link = linkOf(event);
    if (link && !touched) {
      open(link);
    }
  });
  document.addEventListener("focusout", (event) => {
    if (event.target === current) {
      close();
    }
  });
  document.addEventListener("keydown", (event) => {
    touched = false;
    if (event.key === "Escape") {
      close();
    }
  });

  /* The browser's own tooltip would say the same once more. */
  for (const link of document.querySelectorAll("article a[title]")) {
    if (!link.classList.contains("headerlink") && key(link)) {
      link.removeAttribute("title");
    }
  }
})();
