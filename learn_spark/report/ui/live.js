// Asks every two seconds what works now, and shows what changed. The answer is HTML that the server has escaped.
"use strict";

const page = document.currentScript.dataset.page;
const [sentence, rest, newer] = ["now-sentence", "now-rest", "now-newer"].map((id) => document.getElementById(id));
let shown = "";

async function look() {
  try {
    const answer = await (await fetch("/live.json", { cache: "no-store" })).json();
    if (sentence.textContent !== answer.sentence) sentence.textContent = answer.sentence;
    if (answer.html !== shown) {
      rest.replaceChildren(document.createRange().createContextualFragment(answer.html));
      const lines = rest.querySelector("pre");
      if (lines) lines.scrollTop = lines.scrollHeight;
      shown = answer.html;
    }
    newer.hidden = answer.page === page;
  } catch {
    sentence.textContent = "learn-spark ui has ended: the page shows what was last known.";
  }
  setTimeout(look, 2000);
}

look();
