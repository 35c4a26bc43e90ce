"""How far a candidate that talks to its judge moves its score: ``python -m bench.judge``.

Loads the engine that the settings name, judges every weak answer as it is and under every attack, and writes
docs/results/judge-attacks.md.
"""
