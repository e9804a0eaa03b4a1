"""``dbnd mlflow``: both sides compared, and older runs brought over."""
