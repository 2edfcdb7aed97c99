"""What each step is called in front of people: in the KFP UI and on the terminal."""

TITLES = {
    "claim": "Claim this run",
    "ingest": "Take a data snapshot",
    "validate": "Validate the data",
    "features": "Join and materialize features",
    "tune": "Search hyperparameters",
    "train": "Train the challenger",
    "evaluate": "Judge the challenger",
    "package": "Package and probe",
    "promote": "Promote to champion",
    "scoring-set": "Join features for scoring",
    "score": "Score with the champion",
    "monitor": "Watch production",
    "decide": "Decide on a retraining",
    "retrain": "Start a retraining",
}
