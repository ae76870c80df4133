"""What each command does: a module a command, loaded when it is called, with `run(arguments) -> exit code`."""
