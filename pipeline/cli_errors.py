"""How commands end when something expected goes wrong: one line and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from stages.errors import ConfigError, ExplainError

EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 130


@contextmanager
def one_line_errors(is_debug: bool) -> Iterator[None]:
    """Turn an expected error into `item: fact; remedy` and its exit code; bugs keep their traceback."""
    try:
        yield
    except ExplainError as error:
        if is_debug:
            raise
        from pipeline.cli_tables import print_error

        print_error(error)
        raise typer.Exit(EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED) from None
    except KeyboardInterrupt:
        if is_debug:
            raise
        typer.echo("stopped by Ctrl-C", err=True)
        raise typer.Exit(EXIT_STOPPED) from None
