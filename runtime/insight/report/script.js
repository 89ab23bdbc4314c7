"use strict";
// Tables sort by a press on a head: numbers by value, the rest as text; a second press turns the order round.
document.querySelectorAll("table.sortable").forEach(function (table) {
  var heads = Array.prototype.slice.call(table.tHead.rows[0].cells), body = table.tBodies[0];
  function key(row, column) {
    var cell = row.cells[column], v = cell.getAttribute("data-v");
    if (v === null) return cell.textContent;
    return v === "inf" ? Infinity : v === "-inf" ? -Infinity : v === "none" ? NaN : Number(v);
  }
  function order(a, b) {
    if (typeof a === "string" || typeof b === "string") return String(a).localeCompare(String(b));
    if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
    return a < b ? -1 : a > b ? 1 : 0;
  }
  heads.forEach(function (head, column) {
    head.addEventListener("click", function () {
      var down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(function (h) { h.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      var rows = Array.prototype.map.call(body.rows, function (row, i) { return { row: row, key: key(row, column), at: i }; });
      rows.sort(function (a, b) { return (down ? -order(a.key, b.key) : order(a.key, b.key)) || a.at - b.at; });
      rows.forEach(function (r) { body.appendChild(r.row); });
    });
  });
});
