"""A fleet of real OmenDB processes on one machine: started, watched, killed and started again."""
