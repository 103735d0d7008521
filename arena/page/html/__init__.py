"""Battles, ratings and model text as safe HTML; knows no Gradio, no store and no right."""
