"""What fits on a machine, by arithmetic: no tensors, no device, so that it can be asked before anything is loaded."""
