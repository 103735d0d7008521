"""A checked request as a completion: text to token ids and back; knows no HTTP route."""
