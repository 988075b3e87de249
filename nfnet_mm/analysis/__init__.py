"""Parameter and multiply-add counts of the networks, and the model zoo that is written from them."""
