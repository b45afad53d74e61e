"""`python -m flows` is `holdfast`."""

from flows.commands.main import app

if __name__ == "__main__":
    app()
