"""A head: a random forest, as any estimator of scikit-learn."""

from sklearn.ensemble import RandomForestClassifier


def forest():
    """Return a new estimator; ``--head forest --head-parameters FILE.toml`` tunes it."""
    return RandomForestClassifier(n_estimators=50, random_state=0)
