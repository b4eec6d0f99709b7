"use strict";
(function () {
  var root = document.documentElement;
  document.getElementById("theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  var map = document.querySelector(".map");
  function pick(path) {
    if (!map) return;
    map.querySelectorAll(".hot").forEach(function (line) { line.classList.remove("hot"); });
    var pops = path.split(" ");
    for (var at = 1; at < pops.length; at++) {
      var ends = [pops[at - 1], pops[at]].sort().join(" ");
      map.querySelectorAll('[data-link="' + ends + '"]').forEach(function (line) { line.classList.add("hot"); });
    }
    map.classList.toggle("picked", pops.length > 1);
  }
  document.querySelectorAll("details[data-path]").forEach(function (route) {
    route.addEventListener("toggle", function () { pick(route.open ? route.dataset.path : ""); });
  });
  document.querySelectorAll("tr[data-route]").forEach(function (row) {
    row.addEventListener("click", function () {
      var route = document.getElementById(row.dataset.route);
      if (route) { route.open = true; route.scrollIntoView({ block: "center" }); }
    });
  });
})();
