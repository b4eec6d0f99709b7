"use strict";
(function () {
  var root = document.documentElement;
  document.getElementById("theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  var map = document.querySelector(".map");
  function heat(shown, key, value) {
    shown.querySelectorAll("[data-" + key + '="' + value + '"]').forEach(function (part) { part.classList.add("hot"); });
  }
  // The map with that path alone.
  function picked(path) {
    var shown = map.cloneNode(true), pops = path.split(" "), box = document.createElement("div");
    pops.forEach(function (pop, at) {
      heat(shown, "pop", pop);
      if (at > 0) heat(shown, "link", [pops[at - 1], pop].sort().join(" "));
    });
    shown.classList.add("picked");
    box.className = "wide";
    box.append(shown);
    return box;
  }
  document.querySelectorAll("details[data-path]").forEach(function (route) {
    route.addEventListener("toggle", function () {
      var box = route.querySelector(".wide > .map");
      if (box) box.parentNode.remove();
      if (map && route.open && route.dataset.path) route.firstElementChild.after(picked(route.dataset.path));
    });
  });
  function follow() {
    var route = /^#route-/.test(location.hash) && document.getElementById(location.hash.slice(1));
    if (!route) return;
    route.open = true;
    route.firstElementChild.focus({ preventScroll: true });
    route.scrollIntoView();
  }
  addEventListener("hashchange", follow);
  document.addEventListener("click", function (event) {
    var link = event.target.closest('a[href^="#route-"]');
    if (link && link.hash === location.hash) follow();
  });
  follow();
})();
