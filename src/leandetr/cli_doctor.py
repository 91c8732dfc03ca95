"""The verb that says what runs on this machine, and what to do where it could be faster."""

from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say which kernels run here, try each operator, and tell what to install.

    Ends with 1 if an operator gives wrong numbers, or none, else with 0: slow is no failure.
    """
    import json

    from leandetr.evaluation.doctor import examine

    health = examine()
    typer.echo(json.dumps(health.as_json(), indent=1) if as_json else health.table())
    if not health.is_right:
        raise typer.Exit(1)
