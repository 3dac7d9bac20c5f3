"""Runs, trainings and releases in the systems that a team has beside a workspace: MLflow."""
