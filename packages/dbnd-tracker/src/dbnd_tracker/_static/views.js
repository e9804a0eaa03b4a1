// Views: the address of the table under a name, for all who use the tracker.

import { send } from "./change.js";

/** Let those who may save what is shown as a view, and forget views. */
export function listenToViews(menu) {
  const form = menu.querySelector("form");
  const attempt = async (method, name, body) => {
    try {
      await send(method, `views/${encodeURIComponent(name)}`, body);
      if (method === "PUT") location.assign(`/app/views/${encodeURIComponent(name)}`);
      else location.reload();
    } catch (error) {
      form.querySelector("[role=alert]").textContent = error.message;
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt("PUT", form.elements.view.value.trim(), { address: `${location.pathname}${location.search}` });
  });
  menu.addEventListener("click", ({ target }) => {
    if (target.dataset.forget) attempt("DELETE", target.dataset.forget);
  });
}
