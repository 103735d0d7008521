"""Keys and values of running rows and the attention over them; knows no request and no adapter."""
