"""The Gradio page: layout, what happens on it, and the HTML it shows."""
