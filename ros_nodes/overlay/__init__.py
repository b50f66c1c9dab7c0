"""The predicted path over a camera's picture."""
