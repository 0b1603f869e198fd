"""What tests/run.py stands on: processes, outcomes of tests, and inputs of steps."""
