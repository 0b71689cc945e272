"""Cases that a fuzzer makes up: recipes, budgets, bundles, data and run folders, and the guard that watches them."""
