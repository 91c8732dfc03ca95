"""The command `leandetr`: each verb is a thin call of the functions of the package.

Exit codes: 0 all went well, 1 some files were skipped, 2 nothing could be done (one sentence says
why), 130 interrupted.
"""

import gc
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from leandetr import (
    __version__,
    cli_compare,
    cli_data,
    cli_doctor,
    cli_looking,
    cli_models,
    cli_profile,
    cli_training,
)
from leandetr.cli_training import Changes
from leandetr.errors import LeanDetrError

if TYPE_CHECKING:
    from leandetr.recipes.recipe import Recipe


class Verbs(typer.core.TyperGroup):
    """All verbs; what goes wrong in one is a single sentence, and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was typed."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (LeanDetrError, OSError) as error:
            if ctx.params["debug"]:
                raise
            typer.echo(f"leandetr: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("leandetr: interrupted; what was finished is kept", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="leandetr",
    cls=Verbs,
    help="Detection transformers: train, evaluate, predict.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line."""
    gc.set_threshold(100_000)  # imports make many objects and no garbage: a tenth of their time
    app()


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"leandetr {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every verb, given before it: `leandetr --debug predict ...`."""


@app.command("list")
def list_verb(
    pattern: Annotated[str, typer.Argument(help="A shell pattern such as 'lite-*'.")] = "*",
) -> None:
    """List the recipes with their costs and published AP, and the shipped models."""
    import fnmatch

    from leandetr.checkpoints.store import shipped_models
    from leandetr.recipes.overview import overview, table

    if lines := overview(pattern):
        typer.echo(table(lines))
    for name in fnmatch.filter(shipped_models(), pattern):
        typer.echo(f"\n{name}: a trained model; leandetr predict {name} PATHS --out DIR")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A recipe, a YAML file or a model.")],
    other: Annotated[str | None, typer.Argument(help="Show what this one has otherwise.")] = None,
    changes: Changes = [],  # noqa: B006  (typer copies it)
) -> None:
    """Print a recipe as YAML, or the difference of two."""
    import difflib

    from leandetr.recipes.codec import dump_yaml

    first = dump_yaml(_recipe(name, changes))
    if other is None:
        typer.echo(first, nl=False)
        return
    second = dump_yaml(_recipe(other, changes))
    lines = difflib.unified_diff(
        first.splitlines(), second.splitlines(), name, other, "", "", 2, ""
    )
    typer.echo("\n".join(lines) or f"{name} and {other} are the same")


app.command("train")(cli_training.train)


app.command("evaluate")(cli_looking.evaluate)
app.command("predict")(cli_looking.predict)
app.add_typer(cli_data.app, name="data")
app.command("scenes")(cli_data.scenes)
app.command("doctor")(cli_doctor.doctor)
app.command("profile")(cli_profile.profile)
app.command("compare")(cli_compare.compare)
app.command("tables")(cli_compare.tables)
app.command("convert")(cli_models.convert)
app.command("publish")(cli_models.publish)
app.command("runs")(cli_training.runs)


def _recipe(name: str, changes: list[str]) -> "Recipe":
    """What `name` stands for, with changes."""
    from leandetr.checkpoints.store import recipe_of
    from leandetr.recipes.codec import override

    return override(recipe_of(name), changes) if changes else recipe_of(name)
