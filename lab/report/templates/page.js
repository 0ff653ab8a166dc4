// What the page does beyond HTML: open all code at once, say which notebook is being read, close the menu.
const codes = [...document.querySelectorAll("details.code, details.ran")];
const button = document.querySelector("button.codes");
button.hidden = codes.length === 0;
button.addEventListener("click", () => {
  const open = codes.some((code) => !code.open);
  codes.forEach((code) => (code.open = open));
  button.textContent = open ? "Hide all code" : "Show all code";
});

const contents = document.getElementById("contents");
const links = new Map([...contents.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
contents.addEventListener("click", (event) => {
  if (event.target.closest("a") && contents.matches(":popover-open")) contents.hidePopover();
});

const visible = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) visible.add(target.id);
    else visible.delete(target.id);
  }
  const here = [...links.keys()].find((id) => visible.has(id));
  for (const [id, link] of links) {
    if (id === here) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}, { rootMargin: "-20% 0px -79% 0px" });
for (const id of links.keys()) watcher.observe(document.getElementById(id));

// What a link leads to may be folded.
const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.localName === "details") at.open = true;
  target?.scrollIntoView();
};
addEventListener("hashchange", reveal);
if (location.hash) reveal();

// A box whose content fits needs no stop on the way through the page by keyboard.
const boxes = ".scroll, .wide, main pre";
const fits = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const box = target.closest(boxes);
    box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
  }
});
for (const box of document.querySelectorAll(boxes)) {
  fits.observe(box);
  if (box.firstElementChild) fits.observe(box.firstElementChild);
}
