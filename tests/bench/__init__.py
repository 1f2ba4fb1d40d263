"""What Penstock costs beside a bare relay: ``python -m tests.bench``; how each figure is measured: README.md here."""
