"""The life of a battle, from the draw of a pair to the vote; knows no HTTP and no Gradio."""
