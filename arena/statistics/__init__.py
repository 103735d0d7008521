"""What numbers say: tables of votes, fits, intervals, pair draws, plots. Knows no store."""
