"""Model servers: what they serve, and their answers as streams; knows no battle and no store."""
