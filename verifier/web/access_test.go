package web

// audit is a script that gives what is wrong with a page for people who do not see it well, or have no mouse: text without
// enough contrast (WCAG 2.1, 1.4.3), controls and pictures without a name, IDs that are there twice, no or several main headings,
// a page wider than its window.
const audit = `(() => {
  const wrong = [];
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (css) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = '#000'; canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
    const d = canvas.getImageData(0, 0, 1, 1).data;
    return [d[0], d[1], d[2], d[3] / 255];
  };
  const mix = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3])).concat(1);
  const ground = (el) => {
    const layers = [];
    for (let e = el; e; e = e.parentElement) {
      let c;
      if (e instanceof SVGElement && e.tagName === 'a') {
        const box = e.querySelector('rect');
        c = box ? rgba(getComputedStyle(box).fill) : [0, 0, 0, 0];
      } else c = rgba(getComputedStyle(e).backgroundColor);
      layers.push(c);
      if (c[3] === 1) break;
    }
    let out = [255, 255, 255, 1];
    for (const c of layers.reverse()) out = mix(c, out);
    return out;
  };
  const light = (c) => {
    const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const seen = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const el = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || seen.has(el) || el.closest('title, script, noscript, option, desc')) continue;
    seen.add(el);
    if (!el.checkVisibility({opacityProperty: true, visibilityProperty: true}) || el.closest('.vh, .skip')) continue;
    const css = getComputedStyle(el), svg = el instanceof SVGElement;
    const back = ground(el), fore = mix(rgba(svg ? css.fill : css.color), back);
    const px = parseFloat(css.fontSize), large = px >= 24 || px >= 18.66 && css.fontWeight >= 700;
    const r = ratio(fore, back);
    if (r < (large ? 3 : 4.5)) wrong.push('contrast ' + r.toFixed(2) + ': ' + walk.currentNode.data.trim().slice(0, 40) + ' <' + el.tagName + ' ' + (el.getAttribute('class') || '') + '>');
  }
  const named = (e) => e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length && e.labels[0].textContent.trim());
  for (const e of document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary, svg[role=img], nav')) {
    const label = ['INPUT', 'SELECT', 'TEXTAREA'].includes(e.tagName) ? (e.getAttribute('aria-label') || (e.labels.length && e.labels[0].textContent.trim())) : e.tagName === 'NAV' || e.tagName === 'svg' ? e.getAttribute('aria-label') : named(e);
    if (!label) wrong.push('no name: ' + e.outerHTML.slice(0, 120));
  }
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  for (const id of new Set(ids.filter((x, i) => ids.indexOf(x) !== i))) wrong.push('twice: #' + id);
  if (document.querySelectorAll('h1').length !== 1) wrong.push('main headings: ' + document.querySelectorAll('h1').length);
  if (document.querySelectorAll('[tabindex]:not([tabindex="-1"]):not([tabindex="0"])').length) wrong.push('an order of its own for the Tab key');
  for (const u of document.querySelectorAll('use')) if (!document.querySelector(u.getAttribute('href'))) wrong.push('no picture ' + u.getAttribute('href'));
  for (const s of document.querySelectorAll('.state, .verdict[class*=s-]')) if (!s.querySelector('svg use') || !s.textContent.trim()) wrong.push('a state by colour alone: ' + s.outerHTML.slice(0, 80));
  const over = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (over > 0) wrong.push(over + ' px too wide');
  return wrong;
})()`
