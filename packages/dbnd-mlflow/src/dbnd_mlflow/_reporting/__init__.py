"""What MLflow says of its runs, as events of the tracking client."""
