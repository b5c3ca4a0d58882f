"""What people look at: figures, tables, the HTML report, and runs in MLflow."""
