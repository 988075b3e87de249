"""The demos: generated data for four tasks, configs that learn them in minutes, and pictures of what was learnt."""
