"""The web page: what stands on it, and the templates and static files that show it.

The stack, and why it is so small:

- **Pages are made in the server**, by Jinja2. Tables, facts and the timeline of a run are complete without JavaScript,
  links go deep by themselves, and there is one place that escapes.
- **Live pages** fetch their own address again and take over what has changed: no second way of rendering.
- **Charts are a thousand lines of our own** on a canvas. No Python package that is kept well ships a small chart
  library; npm would make installing from a checkout need Node; and vendored files grow old. What a chart here must do
  (a million points by asking the server for the part in view, gaps where NaN stands) no library does by itself.
- **No build step**: JavaScript modules and one style sheet, served as they stand in ``_static`` under an address that
  holds their hash, so that browsers may keep them.
"""
