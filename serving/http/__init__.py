"""The routes, the application over them and the process that listens; knows no tensor."""
