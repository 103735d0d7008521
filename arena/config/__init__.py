"""What the person who runs an arena may set, typed and checked; knows no server and no page."""
