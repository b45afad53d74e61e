"""`python -m flows` is `holdfast`."""

from flows.command import app

if __name__ == "__main__":
    app()
