// What those who may do to a run: change its name, note and tags, stop it, delete it.

/** Send something to the read API; a session is asked to repeat a cookie that no other site can read. */
export async function send(method, path, body) {
  await fetch("/api/v1/auth/csrf");
  const token = document.cookie.match(/(?:^|; )X-CSRF-TOKEN=([^;]*)/)?.[1] ?? "";
  const headers = { "Content-Type": "application/json", "X-CSRFToken": decodeURIComponent(token) };
  const answer = await fetch(`/api/v1/${path}`, { method, headers, body: JSON.stringify(body) });
  if (answer.ok) return;
  const { detail } = await answer.json().catch(() => ({}));
  throw new Error(typeof detail === "string" ? detail : `The tracker answers ${answer.status}.`);
}

/** Let the fields of `menu` change the run that it names. */
export function listenToChanges(menu) {
  const { run } = menu.dataset;
  const form = menu.querySelector("form");
  const dialog = document.getElementById("delete");
  const attempt = async (action, next) => {
    try {
      await action();
      next();
    } catch (error) {
      form.querySelector("[role=alert]").textContent = error.message;
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const { name, description, tag, value } = form.elements;
    const tags = tag.value ? { [tag.value]: value.value || null } : {};
    const changed = { name: name.value, description: description.value, tags };
    attempt(() => send("PATCH", `runs/${run}`, changed), () => location.reload());
  });
  form.elements.stop?.addEventListener("click", () => {
    attempt(() => send("POST", "runs/stop", [run]), () => location.reload());
  });
  form.elements.delete.addEventListener("click", () => dialog.showModal());
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "delete") attempt(() => send("DELETE", `runs/${run}`), () => location.assign("/"));
  });
}
