"""Who takes part and how they are asked: servers, their streams, their failures in words."""
