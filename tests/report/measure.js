// Looks at every frame as a reader would get it, with all details open, and writes what it finds as JSON.
"use strict";

function channels(colour) {
  const found = colour.match(/[\d.]+/g).map(Number);
  return { rgb: found.slice(0, 3), alpha: found.length > 3 ? found[3] : 1 };
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// The contrast ratio of WCAG 2.
function contrast(one, other) {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}

function background(view, element) {
  for (let at = element; at; at = at.parentElement) {
    const { rgb, alpha } = channels(view.getComputedStyle(at).backgroundColor);
    if (alpha === 1) return rgb;
  }
  return [255, 255, 255];
}

const KINDS = { mark: "g.mark-symbol.role-mark > path", line: "g.mark-line > path", bar: "g.mark-rule.role-mark > line" };

// Pairs of texts that share more than a pixel in both directions.
function overlaps(texts) {
  const boxes = texts.map((one) => [one.textContent, one.getBoundingClientRect()]);
  return boxes.flatMap(([name, a], at) => boxes.slice(at + 1).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1
  ).map(([other]) => [name, other]));
}

// The boxes of the lines of an element's text.
function texts_of(element) {
  const range = element.ownerDocument.createRange();
  range.selectNodeContents(element);
  return [...range.getClientRects()].filter((box) => box.width > 0);
}

function look(frame) {
  const page = frame.contentDocument, view = frame.contentWindow;
  const all = (selector, within = page) => [...within.querySelectorAll(selector)];
  all("details").forEach((one) => { one.open = true; });

  const texts = [];
  const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const owner = node.parentElement;
    if (!node.data.trim() || owner.closest("title, desc, .skip")) continue;
    const style = view.getComputedStyle(owner);
    const ink = channels(owner.closest("svg") ? style.fill : style.color).rgb;
    texts.push({ text: node.data.trim().slice(0, 60), contrast: contrast(ink, background(view, owner)) });
  }

  const plots = all("figure > svg").map((svg) => {
    const frameOf = svg.getBoundingClientRect();
    const drawn = Object.entries(KINDS).flatMap(([kind, selector]) => all(selector, svg).map((shape) => {
      const style = view.getComputedStyle(shape), box = shape.getBoundingClientRect();
      const paint = kind === "mark" ? style.fill : style.stroke;
      return {
        kind,
        size: Math.max(box.width, box.height),
        contrast: paint === "none" ? 0 : contrast(channels(paint).rgb, background(view, svg)),
        outline: shape.getAttribute("d"),
      };
    }));
    const outside = all("*", svg).filter((part) => {
      const box = part.getBoundingClientRect();
      return box.width + box.height > 0 && (box.left < frameOf.left - 1 || box.right > frameOf.right + 1 ||
        box.top < frameOf.top - 1 || box.bottom > frameOf.bottom + 1);
    });
    const said = (name) => page.getElementById(svg.getAttribute(name))?.textContent ?? "";
    const scale = frameOf.width / svg.viewBox.baseVal.width;
    return {
      key: svg.getAttribute("aria-labelledby").replace(/-title$/, ""),
      role: svg.getAttribute("role"),
      name: said("aria-labelledby"),
      words: said("aria-describedby"),
      width: frameOf.width,
      drawn,
      outside: outside.map((part) => part.outerHTML.slice(0, 80)),
      overlaps: overlaps(all("text", svg)),
      text: Math.min(...all("text", svg).map((one) => scale * parseFloat(view.getComputedStyle(one).fontSize))),
    };
  });

  // Where the keyboard is: an outline of two pixels or more on whatever has the focus.
  const reached = all("a[href], summary, [tabindex]").filter((one) => one.getClientRects().length);
  const dim = reached.filter((one) => {
    one.focus({ preventScroll: true });
    const style = view.getComputedStyle(one);
    return page.activeElement === one && (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2);
  });
  const ids = all("[id]").map((one) => one.id);
  const references = [
    ...all('a[href^="#"]').map((one) => one.getAttribute("href").slice(1)),
    ...all("[aria-labelledby]").map((one) => one.getAttribute("aria-labelledby")),
  ];
  return {
    title: page.title,
    language: page.documentElement.lang,
    paper: view.getComputedStyle(page.body).backgroundColor,
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    requests: view.performance.getEntriesByType("resource").map((one) => one.name),
    scripts: all("script, img, iframe, object, link").length,
    handlers: all("*").filter((one) => [...one.attributes].some((a) => a.name.startsWith("on"))).length,
    text: page.body.innerText,
    texts,
    plots,
    headings: all("h1, h2, h3, h4, h5").map((one) => Number(one.tagName[1])),
    landmarks: ["header", "nav", "main", "footer"].map((name) => all(`body ${name}`).length),
    captionless: all("table").filter((one) => !one.caption?.textContent.trim()).length,
    scopeless: all("th:not([scope])").length,
    repeated: ids.filter((id, at) => ids.indexOf(id) !== at),
    dangling: references.filter((id) => !ids.includes(id)),
    nameless: [...all("a"), ...all("svg:not([aria-hidden])")].filter((one) =>
      !(one.textContent.trim() || one.getAttribute("aria-label"))).map((one) => one.outerHTML.slice(0, 80)),
    links: all('a:not([href^="#"])').map((one) => one.getAttribute("href")),
    reached: reached.length,
    dim: dim.map((one) => one.outerHTML.slice(0, 80)),
    // Prose that one must scroll a table sideways to read, although it could wrap.
    hidden: all(".scroll").filter((one) => [...one.querySelectorAll("caption, .note td")].some((prose) =>
      Math.max(...texts_of(prose).map((line) => line.right)) > one.getBoundingClientRect().left + one.clientWidth + 1
    )).map((one) => one.getAttribute("aria-labelledby")),
    // Columns of words, whose edge is on the left as in the head.
    ragged: all("tbody td").filter((cell) =>
      /^[a-z_ ,]+$/i.test(cell.textContent.trim()) && cell.textContent.trim() !== "none" &&
      view.getComputedStyle(cell).textAlign === "right"
    ).map((cell) => cell.outerHTML.slice(0, 80)),
    trapped: all("*").filter((one) =>
      one.scrollWidth > one.clientWidth + 1 && view.getComputedStyle(one).overflowX === "auto" && one.tabIndex < 0
    ).length,
  };
}

window.addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) found[frame.dataset.width] = look(frame);
  document.getElementById("found").textContent = JSON.stringify(found);
});
