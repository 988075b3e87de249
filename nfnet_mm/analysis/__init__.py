"""What can be told of the networks: sizes, signals, speed. Functions return rows; tools print and plot them."""
