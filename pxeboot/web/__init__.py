"""HTTP: artefacts for nodes, the API for operators."""
