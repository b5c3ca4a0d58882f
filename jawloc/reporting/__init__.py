"""What people look at: pictures and MLflow."""
