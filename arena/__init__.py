"""The page, the votes and what they say: battles, store, ratings, exports."""
