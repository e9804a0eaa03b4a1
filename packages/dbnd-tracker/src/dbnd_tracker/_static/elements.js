// Elements, made with what they have.

/** An element with properties, such as `className` and `ariaLabel`, and with children. */
export function element(tag, given = {}, ...children) {
  const made = Object.assign(document.createElement(tag), given);
  made.append(...children);
  return made;
}
