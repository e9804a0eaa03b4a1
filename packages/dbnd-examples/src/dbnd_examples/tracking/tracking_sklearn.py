"""A real training: scikit-learn with MLflow's autologging, on the wine data that scikit-learn ships.

Run it with ``dbnd run sklearn_autolog_example --set-config mlflow_tracking.databand_tracking=True``.
"""

from __future__ import annotations

import mlflow
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from dbnd import log_metric, task


@task
def split_data(test_size: float) -> tuple[object, object, object, object]:
    """Load the wine data and split it into training and test sets.

    Args:
        test_size: Part of the rows that is kept for the test, between 0 and 1.
    """
    features, target = load_wine(return_X_y=True, as_frame=True)
    log_metric("rows", len(features))
    train_x, test_x, train_y, test_y = train_test_split(features, target, test_size=test_size, random_state=0)
    return train_x, test_x, train_y, test_y


@task
def train_wine_classifier(trees: int = 50, max_depth: int = 4, test_size: float = 0.25) -> float:
    """Train a random forest; MLflow logs its params, metrics and model by itself.

    Args:
        trees: Number of trees.
        max_depth: Greatest depth of a tree.
        test_size: Part of the rows that is kept for the test, between 0 and 1.

    Returns:
        Accuracy on the test set.
    """
    mlflow.autolog(silent=True)
    train_x, test_x, train_y, test_y = split_data(test_size)
    with mlflow.start_run():
        model = RandomForestClassifier(n_estimators=trees, max_depth=max_depth, random_state=0)
        model.fit(train_x, train_y)
        accuracy = float(model.score(test_x, test_y))
    print(f"Accuracy on the test set: {accuracy:.3f}")
    return accuracy
