// What changes while one looks at a page. Without this file every page works, and shows what was true when it was made.
(function () {
  'use strict';
  const kinds = ['verdict', 'host', 'vm', 'document', 'settings', 'alert', 'replica', 'reconcile'];
  const pause = 1500; // ms between two refreshes of a part, however many events come
  const live = document.getElementById('live');
  const path = document.body.dataset.events;
  let source = null, timer = 0, last = 0;
  const due = new Set();

  // A part that somebody works in is not pulled from under them.
  function busy(part) {
    const at = document.activeElement;
    if (at && part.contains(at) && /^(INPUT|SELECT|TEXTAREA)$/.test(at.tagName)) return true;
    return part.querySelector('details[open], input[type=checkbox]:checked, input[data-select]') !== null;
  }

  function offer() {
    if (document.getElementById('fresh')) return;
    const b = document.createElement('button');
    b.id = 'fresh';
    b.className = 'primary';
    b.textContent = 'Something changed: reload';
    b.addEventListener('click', () => location.reload());
    document.body.append(b);
  }

  function refresh() {
    timer = 0;
    last = Date.now();
    for (const id of due) {
      const part = document.getElementById(id);
      if (!part) continue;
      if (busy(part)) offer(); else htmx.trigger(part, 'live');
    }
    due.clear();
  }

  function changed(kind, event) {
    for (const part of document.querySelectorAll('[data-live]')) {
      if (!part.dataset.live.split(' ').includes(kind)) continue;
      const m = part.dataset.machine;
      if (m && event.machine !== m && event.host !== m) continue;
      due.add(part.id);
    }
    if (due.size && !timer) timer = setTimeout(refresh, Math.max(200, pause - (Date.now() - last)));
  }

  function say(on) {
    live.hidden = false;
    live.className = on ? 'live' : 'live off';
    live.textContent = on ? 'live' : 'not live, retrying';
  }

  function open() {
    if (source || !path || !window.EventSource) return;
    source = new EventSource(path);
    source.onopen = () => say(true);
    source.onerror = () => say(false);
    const take = (e) => {
      let event = {};
      try { event = JSON.parse(e.data); } catch { return; }
      changed(event.kind || e.type, event);
    };
    source.onmessage = take;
    for (const k of kinds) source.addEventListener(k, take);
  }

  function close() {
    if (source) source.close();
    source = null;
  }

  // Browsers open few connections to one server: a page that nobody sees gives its own back.
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) { close(); return; }
    const was = source;
    open();
    if (!was && path) document.querySelectorAll('[data-live]').forEach((p) => { if (!busy(p)) htmx.trigger(p, 'live'); });
  });
  addEventListener('pagehide', close);
  if (!document.hidden) open();

  document.addEventListener('keydown', (e) => {
    if (e.key !== '/' || e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
    const q = document.getElementById('q');
    if (!q) return;
    e.preventDefault();
    q.focus();
    q.select();
  });

  // "All on this page" ticks what its form has.
  document.addEventListener('change', (e) => {
    if (!e.target.matches('input[data-all]')) return;
    e.target.form.querySelectorAll('tbody input[type=checkbox]').forEach((b) => { b.checked = e.target.checked; });
  });
  document.addEventListener('focusin', (e) => { if (e.target.matches('input[data-select]')) e.target.select(); });

  // A token in the address's fragment never reaches a server's log; it goes into the form, and out of the address.
  const token = document.getElementById('token');
  if (token && location.hash.length > 1) {
    token.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, '', location.pathname + location.search);
    token.form.querySelector('button').focus();
  }
})();
