"""HTTP around the page: who may come in, and the JSON API; knows no Gradio and no markup."""
