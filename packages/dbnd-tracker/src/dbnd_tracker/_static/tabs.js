// The tabs of a long page: the one whose part is at the top of the window is current.

const BELOW_TABS = 80;

/** Mark the current tab of `tabs`, now and whenever the page is scrolled. */
export function followTabs(tabs) {
  const show = () => {
    const links = [...tabs.querySelectorAll("a")];
    const begun = links.filter(({ hash }) => {
      const part = document.getElementById(hash.slice(1));
      return part && part.getBoundingClientRect().top < BELOW_TABS;
    });
    const current = begun.at(-1) ?? links[0];
    for (const link of links) {
      if (link === current) link.setAttribute("aria-current", "location");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", show, { passive: true });
  show();
}
