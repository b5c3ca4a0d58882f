"""MLflow: runs, models, the registry and its pages; no other package imports it."""

import os

# Wait about a minute for a server that restarts (MLflow's own choice is four).
MLFLOW_RETRIES, USUAL_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5"
MLFLOW_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # in seconds

# MLflow reads these when it is imported; what the user has set stays.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault(MLFLOW_RETRIES, USUAL_RETRIES)
