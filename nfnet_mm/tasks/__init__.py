"""What needs more of the stack than torch and mmengine; one room per framework."""
