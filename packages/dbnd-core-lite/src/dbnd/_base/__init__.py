"""What every other part stands on: errors, paths, masking, facts about the machine, forks and signals."""
