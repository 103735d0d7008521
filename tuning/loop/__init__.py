"""From votes to a better model: reward model, policy, controls, measures and one report.

Calls what the other rooms do, step after step, and keeps what each step found in files. Knows no
page, no server and no store; votes come as files of rows.
"""
