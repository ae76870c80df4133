"""Clips: finding them, judging them, and turning them into frames and sound. numpy and PyAV; never torch."""
