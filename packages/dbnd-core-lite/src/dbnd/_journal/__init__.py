"""Files that keep events until the tracker has them."""
