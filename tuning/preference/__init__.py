"""From preferences to better models: objectives, judges and reports; knows no arena and no HTTP."""
