"""Tunes a variant on a machine of the hub and sends it there: the job's own disk is lost.

The arguments are those of `arena tune`; the repository is named by the variable ARENA_REPO.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["instruct-arena"]
# ///

import os
import subprocess
import sys

words = sys.argv[1:]
name = words[words.index("--name") + 1]
subprocess.run(["arena", "tune", *words], check=True)
send = ["arena", "models", "export", name, "--to", "hub", "--out", os.environ["ARENA_REPO"]]
subprocess.run([*send, "--yes"], check=True)
