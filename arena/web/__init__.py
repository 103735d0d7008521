"""HTTP around the page: guards, sign-in, the JSON API."""
