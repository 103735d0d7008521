"""The life of a battle: drawn, asked, watched, stopped, judged, and prompt sets judged in a row."""
