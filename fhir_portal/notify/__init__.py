"""Side effects and jobs: written down with the change that asks for them, done afterwards."""
