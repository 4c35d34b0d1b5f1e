//! What a person with good or bad eyes would see: texts that stand out, and nothing that sticks out.

use serde_json::Value;

use crate::chromium::Page;

/// Texts whose contrast is below WCAG 2.2's AA (4.5:1), with their ratio. By the formulas of relative luminance and
/// contrast ratio there.
const CONTRAST: &str = r"
(() => {
  const parse = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const channel = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
      if (colour.length === 4 && colour[3] > 0) return undefined;
    }
    return [255, 255, 255];
  };
  const bad = [];
  let seen = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !element.checkVisibility?.()) continue;
    if (element.closest('title, desc, script, style, .unseen')) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.namespaceURI.endsWith('svg') ? style.fill : style.color);
    const paper = ground(element);
    seen += 1;
    const found = paper ? ratio(luminance(ink), luminance(paper)) : 0;
    if (found < 4.5) bad.push(`${found.toFixed(2)} ${element.tagName}.${element.getAttribute('class')}: ${walk.currentNode.textContent.trim().slice(0, 40)}`);
  }
  return { seen, bad: [...new Set(bad)] };
})()";

/// What is wider than its place, and does not scroll by itself.
const OVERFLOW: &str = r"
(() => {
  const root = document.documentElement;
  const bad = root.scrollWidth > root.clientWidth ? [`page: ${root.scrollWidth} > ${root.clientWidth}`] : [];
  for (const element of document.querySelectorAll('.card, .tools, header, figure, dl, dialog[open]')) {
    if (!element.classList.contains('scroll') && element.scrollWidth > element.clientWidth + 1) {
      bad.push(`${element.tagName}.${element.className} ${element.textContent.trim().slice(0, 30)}: ${element.scrollWidth} > ${element.clientWidth}`);
    }
  }
  return bad;
})()";

/// Controls and pictures without a name, ids that are there twice, and headings or landmarks that are missing.
const NAMES: &str = r"
(() => {
  const bad = [];
  const name = (e) => e.getAttribute('aria-label') || e.textContent.trim() || [...(e.labels ?? [])].map((l) => l.textContent).join('')
    || (e.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => document.getElementById(id)?.textContent ?? '').join('');
  for (const e of document.querySelectorAll('main button, main a, main input, main svg[role=img], main section, main article, dialog')) {
    if (e.checkVisibility?.() && !name(e)) bad.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  }
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  bad.push(...new Set(ids.filter((id, at) => ids.indexOf(id) !== at).map((id) => `twice: ${id}`)));
  for (const wanted of ['header', 'main', 'h1', 'h2', 'html[lang]']) if (!document.querySelector(wanted)) bad.push(`no ${wanted}`);
  for (const table of document.querySelectorAll('table')) if (!table.caption || !table.querySelector('th[scope=col]')) bad.push('a table without caption or heads');
  return bad;
})()";

/// Checks what the page shows now, at the width that it has.
pub async fn check(page: &mut Page, what: &str) {
    assert!(page.eval(CONTRAST).await["seen"].as_u64().unwrap() > 5, "{what}");
    assert_eq!(faults(page).await, [const { Vec::<Value>::new() }; 3], "{what}: contrast, overflow, names");
}

/// What is wrong with contrast, with widths, with names.
pub async fn faults(page: &mut Page) -> [Vec<Value>; 3] {
    let list = |value: Value| value.as_array().unwrap().clone();
    let contrast = page.eval(CONTRAST).await["bad"].take();
    [list(contrast), list(page.eval(OVERFLOW).await), list(page.eval(NAMES).await)]
}
