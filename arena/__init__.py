"""The page where models meet, the votes on their answers, and what the votes say."""
