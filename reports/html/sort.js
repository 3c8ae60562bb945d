'use strict';
function key(row, column) {
  const words = row.cells[column].textContent.trim();
  const number = parseFloat(words.replace(/\u2212/g, '-').replace(/[,\u00a0]/g, ''));
  return {number: number, words: words === '\u2013' ? '' : words};
}
function compare(a, b) {
  if (!isNaN(a.number) && !isNaN(b.number)) return a.number - b.number;
  return a.words.localeCompare(b.words);
}
function empty(k) { return k.words === '' ? 1 : 0; }
function sort(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const falls = head.getAttribute('aria-sort') === 'ascending';
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', falls ? 'descending' : 'ascending');
  const rows = Array.from(table.tBodies[0].rows, row => ({row: row, key: key(row, column)}));
  rows.sort((a, b) => empty(a.key) - empty(b.key)
    || (falls ? -1 : 1) * compare(a.key, b.key));
  table.tBodies[0].append(...rows.map(each => each.row));
}
for (const table of document.querySelectorAll('table.sortable')) {
  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...cell.childNodes);
    button.addEventListener('click', () => sort(table, column));
    cell.append(button);
  });
}
