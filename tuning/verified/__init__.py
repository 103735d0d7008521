"""Training rows whose answers are the base's own and pass a check; knows no run and no method."""
