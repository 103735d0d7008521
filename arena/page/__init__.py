"""The Gradio page: its elements and what happens on it; knows no SQL and no wire of a server."""
