"""The exact machinery under the tables: one automaton, and what is found on it."""
