"""Long checks that are run by hand: kills, fuzzing, memory, scale. Short forms are tests."""
