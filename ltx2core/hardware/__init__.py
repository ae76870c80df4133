"""What this machine is (probe), and what a run uses of it each second (telemetry)."""
