"""The parity suite: scenarios, the two sides they run on, and how what they observe is compared.

``test_parity.py`` runs it. A scenario is a function that works with MLflow under whatever tracking URI is set and
returns what it has observed; it knows nothing of databand.
"""
